from __future__ import annotations

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from textocvp.cli import main


class Server:
    """Serves one archive on loopback; `broken_after` cuts answers short, `ranges` allows resuming."""

    def __init__(self):
        self.body, self.ranges, self.broken_after, self.status = b"", True, [], 200
        self.shift, self.tells_length = 0, True
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 (the library's name)
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/download"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.requests.append(wanted)
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.body) and wanted:
            return request.send_error(416)
        if self.status != 200:
            return request.send_error(self.status)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start - self.shift}-/{len(self.body)}")
        if self.tells_length:
            request.send_header("Content-Length", str(len(self.body) - start))
        request.end_headers()
        end = self.broken_after.pop(0) if self.broken_after else len(self.body)
        request.wfile.write(self.body[start:end])
        return None


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.thread.join()
    server.http.server_close()


def archive(source):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(source.rglob("*")):
            file.write(path, f"experiments/TextOCVP_CATER/{path.relative_to(source)}")
    return buffer.getvalue()


def download(server, out):
    return main(["download-pretrained", "--out", str(out), "--url", server.url])


def test_fetches_extracts_and_imports(original, server, tmp_path, capsys):
    server.body = archive(original[0])
    out = tmp_path / "experiments"
    assert download(server, out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["TextOCVP_CATER"]
    assert (out / "TextOCVP_CATER/predictors/vanilla_tiny/models/checkpoint_epoch_7.pth").is_file()
    assert download(server, out) == 0
    assert "TextOCVP_CATER: is there already, kept" in capsys.readouterr().out


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(original, server, tmp_path, capsys, ranges):
    server.body, server.ranges = archive(original[0]), ranges
    half = len(server.body) // 2
    server.broken_after = [half]
    out = tmp_path / "experiments"
    assert download(server, out) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the same command continues" in error and "kept" in error
    assert (out / ".pretrained.zip.part").stat().st_size == half
    assert download(server, out) == 0
    assert server.requests == [None, f"bytes={half}-"] and (out / "TextOCVP_CATER").is_dir()


def test_servers_that_do_not_help(server, tmp_path, capsys):
    server.status = 404
    assert download(server, tmp_path) == 2
    assert "the server answers 404 Not Found" in capsys.readouterr().err
    server.status, server.body = 200, b"<html>a page, no archive</html>"
    assert download(server, tmp_path) == 2
    error = capsys.readouterr().err
    assert "not a zip file); it is removed, run the command again" in error
    assert not (tmp_path / ".pretrained.zip").exists()
    assert main(["download-pretrained", "--out", str(tmp_path), "--url", "http://127.0.0.1:9/x"]) == 2
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil", "./C:/evil"])
def test_archives_that_would_write_elsewhere(server, tmp_path, capsys, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo(name), "gotcha")
    server.body = buffer.getvalue()
    assert download(server, tmp_path / "out") == 2
    assert "leads out of the folder; not unpacked" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*evil*"))


def test_archives_with_links_or_without_experiments(server, tmp_path, capsys):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    server.body = buffer.getvalue()
    assert download(server, tmp_path / "a") == 2
    assert "is a link; not unpacked" in capsys.readouterr().err
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme.txt", "nothing here")
    server.body = buffer.getvalue()
    assert download(server, tmp_path / "b") == 2
    assert "held no experiment_params.json and is removed; is http" in capsys.readouterr().err
    assert not list((tmp_path / "b").iterdir())


def test_another_part_than_was_asked_for_is_not_appended(original, server, tmp_path, capsys):
    server.body = archive(original[0])
    server.broken_after, server.shift = [100], 7
    assert download(server, tmp_path) == download(server, tmp_path) == 2
    assert "sends another part than that from byte 100 on; 0.0 MB are kept" in capsys.readouterr().err
    assert (tmp_path / ".pretrained.zip.part").read_bytes() == server.body[:100]
    server.shift = 0
    assert download(server, tmp_path) == 0


def test_a_part_that_is_too_long_is_fetched_anew(original, server, tmp_path):
    server.body = archive(original[0])
    (tmp_path / ".pretrained.zip.part").write_bytes(server.body + b"more")
    assert download(server, tmp_path) == 0
    assert server.requests[1] is None


def test_a_server_that_does_not_tell_the_length(original, server, tmp_path, capsys):
    server.body, server.tells_length = archive(original[0]), False
    assert download(server, tmp_path) == 0
    assert "download-pretrained: MB 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "bytes", "method", "encrypted"])
def test_damaged_archives_are_removed(original, server, tmp_path, capsys, damage):
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
    assert download(server, tmp_path) == 2
    error = capsys.readouterr().err
    assert ".pretrained.zip: damaged (" in error and "it is removed, run the command again" in error
    assert error.count("\n") == 1 and not list(tmp_path.glob(".pretrained*"))


def test_one_experiment_that_does_not_fit_keeps_none_from_the_others(original, server, tmp_path, capsys):
    source = original[0]
    buffer = io.BytesIO(archive(source))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("experiments/A_broken/experiment_params.json", "{")
    server.body = buffer.getvalue()
    for _ in range(2):
        assert download(server, tmp_path) == 2
        warning, error = capsys.readouterr().err.strip().splitlines()
        assert "A_broken/experiment_params.json: damaged, not valid JSON" in warning
        assert "not imported, for the reasons above: A_broken; " in error and "is kept" in error
    assert (tmp_path / "TextOCVP_CATER/models").is_dir() and len(server.requests) == 1


def test_addresses_that_are_none(tmp_path, capsys):
    assert main(["download-pretrained", "--out", str(tmp_path), "--url", "archive.zip"]) == 2
    assert "archive.zip: no address; --url takes one like https://" in capsys.readouterr().err
