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
    assert "not a zip file; it is removed, run the command again" in error
    assert not (tmp_path / ".pretrained.zip").exists()
    assert main(["download-pretrained", "--out", str(tmp_path), "--url", "http://127.0.0.1:9/x"]) == 2
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
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
    assert "holds no experiment_params.json" in capsys.readouterr().err
