import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from textocvp.cli import main


class Handler(BaseHTTPRequestHandler):
    """Answers with the server's archive, or with a part of it."""

    def do_GET(self):  # noqa: N802 (the library's name)
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and server.ranges else 0
        if server.status != 200 or (wanted and start >= len(server.body)):
            return self.send_error(416 if server.status == 200 else server.status)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start - server.shift}-/{len(server.body)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        self.wfile.write(server.body[start : server.broken_after.pop() if server.broken_after else None])
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    """Serves `body` on loopback; `broken_after` cuts an answer short, `ranges` allows resuming."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.ranges, server.broken_after, server.status = b"", True, [], 200
        server.shift, server.says_length, server.requests = 0, True, []
        server.url = f"http://127.0.0.1:{server.server_port}/download"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def archive(source):
    """Of an experiment with one of its predictors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(source.rglob("*")):
            below = path.relative_to(source)
            if below.parts[:2] in (("predictors", "vanilla_tiny"), ("models", path.name), below.parts[:1]):
                file.write(path, f"experiments/TextOCVP_CATER/{below}")
    return buffer.getvalue()


def archive_of(name, text="", mode=0):
    """An archive of one entry."""
    buffer, entry = io.BytesIO(), zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(entry, text)
    return buffer.getvalue()


def command(server, out):
    return ["download-pretrained", "--out", str(out), "--url", server.url]


def download(server, out):
    return main(command(server, out))


def test_downloads_extracts_and_imports(original, server, tmp_path, capsys):
    server.body, out = archive(original[0]), tmp_path / "experiments"
    assert download(server, out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["TextOCVP_CATER"]
    checkpoint = out / "TextOCVP_CATER/predictors/vanilla_tiny/models/checkpoint_epoch_7.pth"
    before = checkpoint.stat().st_mtime_ns
    assert download(server, out) == 0
    assert str(out / "TextOCVP_CATER") in capsys.readouterr().err and checkpoint.stat().st_mtime_ns == before


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(original, server, tmp_path, error_of, ranges):
    server.body, server.ranges = archive(original[0]), ranges
    half = len(server.body) // 2
    server.broken_after = [half]
    error = error_of(*command(server, tmp_path))
    assert server.url in error and f"{half / 1000:.0f} kB"[:2] in error and "continue" in error
    assert (tmp_path / ".pretrained.zip.part").stat().st_size == half
    assert download(server, tmp_path) == 0
    assert server.requests == [None, f"bytes={half}-"] and (tmp_path / "TextOCVP_CATER").is_dir()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("archive.zip", ["archive.zip: expected an address", "https://"]),
        ("http://127.0.0.1:9/x", ["http://127.0.0.1:9/x", "Connection refused"]),
    ],
)
def test_wrong_addresses(tmp_path, error_of, url, parts):
    error = error_of("download-pretrained", "--out", tmp_path, "--url", url)
    assert all(part in error for part in parts)


@pytest.mark.parametrize(
    ("status", "body", "parts"),
    [
        (404, b"", ["the server answered 404 Not Found"]),
        (200, b"<html>not an archive</html>", [".pretrained.zip", "not a zip file", "removed"]),
        (200, archive_of("link", "/etc/passwd", 0o120777), ["'link' is a link"]),
        (200, archive_of("readme.txt", "nothing"), ["experiment_params.json", "removed", "127.0.0.1"]),
        *(
            (200, archive_of(name, "gotcha"), ["leads out of the folder"])
            for name in ("../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "./C:/evil")
        ),
    ],
)
def test_what_is_not_an_archive_of_experiments(server, tmp_path, error_of, status, body, parts):
    server.status, server.body = status, body
    error = error_of(*command(server, tmp_path / "out"))
    assert all(part in error for part in parts)
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.rglob("link"))
    assert "removed" not in parts or not list((tmp_path / "out").iterdir())


def test_another_part_than_the_requested_one_is_not_appended(original, server, tmp_path, error_of):
    server.body, server.broken_after, server.shift = archive(original[0]), [100], 7
    for _ in range(2):
        error = error_of(*command(server, tmp_path))
    assert "byte 100" in error and "100 B are kept" in error
    assert (tmp_path / ".pretrained.zip.part").read_bytes() == server.body[:100]
    server.shift = 0
    assert download(server, tmp_path) == 0


@pytest.mark.parametrize("says_length", [True, False])
def test_a_part_that_is_too_long_is_downloaded_again(original, server, tmp_path, says_length):
    server.body, server.says_length = archive(original[0]), says_length
    (tmp_path / ".pretrained.zip.part").write_bytes(server.body + b"more")
    assert download(server, tmp_path) == 0
    assert server.requests[1] is None


@pytest.mark.parametrize("damage", ["cut", "bytes", "method", "encrypted"])
def test_damaged_archives_are_removed(original, server, tmp_path, error_of, damage):
    body = bytearray(archive(original[0]))
    central = body.rindex(b"PK\1\2")
    if damage == "cut":
        body = body[: len(body) // 2]
    elif damage == "bytes":
        body[central // 2 : central // 2 + 500] = bytes(500)
    elif damage == "method":
        body[central + 10] = 99
    else:
        body[central + 8] |= 1
    server.body = bytes(body)
    error = error_of(*command(server, tmp_path))
    assert ".pretrained.zip: damaged (" in error and not list(tmp_path.glob(".pretrained*"))


def test_one_experiment_that_does_not_fit_keeps_none_from_the_others(original, server, tmp_path, capsys):
    buffer = io.BytesIO(archive(original[0]))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("experiments/A_broken/experiment_params.json", "{")
    server.body = buffer.getvalue()
    for _ in range(2):
        assert download(server, tmp_path) == 2
        *_, error = lines = capsys.readouterr().err.strip().splitlines()
        assert any("warning" in line and "A_broken/experiment_params.json" in line for line in lines)
        assert "could not import A_broken" in error and ".pretrained.zip is kept" in error
    assert (tmp_path / "TextOCVP_CATER/models").is_dir() and len(server.requests) == 1
