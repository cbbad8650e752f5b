"""`python -m textocvp download-pretrained`: the authors' experiments, downloaded and imported.

After an interruption the same command continues the download, if the server supports it.
"""

import logging
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from textocvp.compat.import_experiment import import_checkpoint
from textocvp.config.experiment import FILE_NAME
from textocvp.files import UserError, format_bytes
from textocvp.terminal import Progress

BLOCK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which the connection counts as lost."""
MAX_BYTES = 100 << 30
"""Of all extracted files together."""
log = logging.getLogger(__name__)


def download_pretrained(out: Path, url: str) -> None:
    """Download the archive and import every experiment in it to OUT/NAME, unless that exists.

    Raises:
        UserError: no connection, no such file, an archive that is damaged or would write elsewhere, or
            experiments in it that cannot be imported; the others are.
    """
    out.mkdir(parents=True, exist_ok=True)
    archive, unpacked = out / ".pretrained.zip", out / ".pretrained"
    fetch(url, archive)
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        extract(archive, unpacked)
        folders = sorted(path.parent for path in unpacked.rglob(FILE_NAME))
        sources = [path for path in folders if "predictors" not in path.relative_to(unpacked).parts]
        failed = [source.name for source in sources if not _import(source, out / source.name)]
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    if failed:
        raise UserError(
            f"could not import {', '.join(failed)}, see the warnings above; {archive} is kept, run the same "
            f"command to try again"
        )
    archive.unlink()
    if not sources:
        raise UserError(f"{archive}: contained no {FILE_NAME} and was removed; check --url {url}")


def _import(source: Path, to: Path) -> bool:
    """Import one experiment unless `to` exists; whether it exists now."""
    if to.exists():
        log.info("%s: exists already, kept", to)
        return True
    try:
        import_checkpoint(source, to)
    except UserError as error:
        log.warning("%s", error)
    return to.exists()


def fetch(url: str, path: Path) -> None:
    """Download to `path`, unless it exists. PATH.part holds what has arrived so far."""
    if path.is_file():
        return
    part = path.with_name(path.name + ".part")
    done = part.stat().st_size if part.is_file() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            _receive(response, part, done)
    except ValueError:
        raise UserError(f"{url}: expected an address like https://host/archive.zip") from None
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise UserError(f"{url}: the server answered {error.code} {error.reason}") from None
        part.unlink()  # it is as long as the file, or longer: start over
        fetch(url, path)
        return
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        kept = format_bytes(part.stat().st_size if part.is_file() else 0)
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(f"{url}: {reason}; {kept} are kept, run the same command to continue") from None
    part.rename(path)


def _receive(response: HTTPResponse, part: Path, done: int) -> None:
    """Append to the part file; start over if the server sends the whole file."""
    if response.status != 206:
        done = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        raise ConnectionError(f"the server sent another part than the one requested, from byte {done}")
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else None
    progress = Progress("download-pretrained", total and max(1, total >> 20), unit="MB")
    with progress, open(part, "ab" if done else "wb") as file:
        while block := response.read(BLOCK):
            done += file.write(block)
            progress.update(done >> 20)
    if total is not None and done != total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into `folder`; no entry may lead elsewhere.

    Raises:
        UserError: not a zip archive, damaged, or with links, absolute paths or "..".
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                path = PurePosixPath(entry.filename.replace("\\", "/"))
                what = f"{archive}: entry {entry.filename!r}"
                if path.is_absolute() or ".." in path.parts or ":" in str(path):
                    raise UserError(f"{what} leads out of the folder; not unpacked")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise UserError(f"{what} is a link; not unpacked")
            if sum(entry.file_size for entry in file.infolist()) > MAX_BYTES:
                raise UserError(f"{archive}: would unpack to more than {format_bytes(MAX_BYTES)}")
            file.extractall(folder)  # checks each entry's checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        archive.unlink()
        raise UserError(f"{archive}: damaged ({error}) and removed; run the command again") from None
