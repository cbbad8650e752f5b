"""`python -m textocvp download-pretrained`: the authors' experiments, fetched and imported.

Called again after an interruption it continues where it stopped, if the server can.
"""

from __future__ import annotations

import shutil
import stat
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from textocvp.compat.import_experiment import import_checkpoint
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME
from textocvp.terminal import Progress

BLOCK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which the connection counts as lost."""
MAX_BYTES = 100 << 30
"""Of all extracted files together."""


def download_pretrained(out: Path, url: str) -> None:
    """Fetch the archive, extract it and import every experiment in it to OUT/NAME.

    An experiment that is there already is kept.

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
        sources = sorted(
            path.parent
            for path in unpacked.rglob(FILE_NAME)
            if "predictors" not in path.relative_to(unpacked).parts
        )
        if not sources:
            archive.unlink()
            raise UserError(f"{archive}: held no {FILE_NAME} and is removed; is {url} the right address?")
        failed = [source.name for source in sources if not _import(source, out / source.name)]
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    if failed:
        raise UserError(
            f"not imported, for the reasons above: {', '.join(failed)}; {archive} is kept, the "
            f"same command tries again"
        )
    archive.unlink()


def _import(source: Path, to: Path) -> bool:
    """Import one experiment, unless it is there; whether there is one now."""
    if to.exists():
        print(f"{to}: is there already, kept")
        return True
    try:
        import_checkpoint(source, to)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return False
    return True


def fetch(url: str, path: Path) -> None:
    """Download to `path`; a file that is there is whole. What is half done lies in PATH.part."""
    if path.is_file():
        return
    part = path.with_name(path.name + ".part")
    done = part.stat().st_size if part.is_file() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            _receive(response, part, done)
    except ValueError:
        raise UserError(f"{url}: no address; --url takes one like https://host/archive.zip") from None
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # what lies there is as long as the file, or longer: begin anew
            part.unlink()
            fetch(url, path)
            return
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        kept = part.stat().st_size if part.is_file() else 0
        raise UserError(
            f"{url}: {reason}; {kept / 1e6:.1f} MB are kept, the same command continues"
        ) from None
    part.rename(path)


def _receive(response: HTTPResponse, part: Path, done: int) -> None:
    """Append to the part file; from the start where the server sends the whole file."""
    if response.status != 206:
        done = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        raise ConnectionError(f"the server sends another part than that from byte {done} on")
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else None
    progress = Progress("download-pretrained", total and max(1, total >> 20), unit="MB")
    with open(part, "ab" if done else "wb") as file:
        while block := response.read(BLOCK):
            file.write(block)
            done += len(block)
            progress.update(done >> 20)
    progress.close()
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def extract(archive: Path, folder: Path) -> None:
    """Unpack a zip archive below `folder`; nothing in it may lead elsewhere.

    Raises:
        UserError: no zip archive, damaged, or with links, absolute paths or "..".
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                _check_entry(archive, entry)
            if sum(entry.file_size for entry in file.infolist()) > MAX_BYTES:
                raise UserError(f"{archive}: would unpack to more than {MAX_BYTES >> 30} GB")
            file.extractall(folder)  # checks each entry's checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        archive.unlink()
        raise UserError(
            f"{archive}: damaged ({error}); it is removed, run the command again to fetch it anew"
        ) from None


def _check_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in str(path):
        raise UserError(f"{archive}: entry {entry.filename!r} leads out of the folder; not unpacked")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UserError(f"{archive}: entry {entry.filename!r} is a link; not unpacked")
