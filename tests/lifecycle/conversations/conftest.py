"""What the tests of the data step share: rows in any shape, and a web server that counts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lifecycle.dataset import DatasetResult, DatasetSpec, download_data

COMMIT = "8049631c405ae6576f93f445c6b8166f76f5505a"


class Web:
    """A web server for one folder, which answers ranges as Azure and the hub do.

    Below ``/api/datasets`` and ``/datasets`` it is also as much of the Hugging Face hub as a data
    set of one commit needs, served from the same folder.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.requests: list[str] = []
        self.bytes_sent = 0
        self.branches = {"main": COMMIT, "v1": COMMIT, COMMIT: COMMIT}
        self.is_down = False
        self.fail_after: int | None = None


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.web.requests.append(f"POST {self.path}")
        files = [self._entry(self.web.folder / name) for name in asked["paths"]]
        self._send(200, json.dumps([file for file in files if file]).encode(), {})

    def log_message(self, *said: Any) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.web.requests.append(f"{self.command} {path}")
        fail_after = self.web.fail_after
        if self.web.is_down or (fail_after is not None and self.web.bytes_sent > fail_after):
            self.close_connection = True
            return
        resolved = re.fullmatch(r"/datasets/[^/]+/[^/]+/resolve/([^/]+)/(.+)", path)
        described = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        tree = re.fullmatch(r"/api/datasets/[^/]+/[^/]+/tree/([^/]+)(?:/(.*))?", path)
        if described:
            self._describe(described[1], described[2] or "main")
        elif tree:
            folder = self.web.folder / (tree[2] or "")
            found = [self._entry(one) for one in sorted(folder.rglob("*"))]
            status = 200 if folder.is_dir() else 404
            self._send(status, json.dumps(found).encode(), _missing("EntryNotFound", status))
        else:
            name = resolved[2] if resolved else path.lstrip("/")
            self._file(self.web.folder / name, with_body=with_body)

    def _describe(self, name: str, revision: str) -> None:
        commit = self.web.branches.get(revision)
        files = [one.relative_to(self.web.folder) for one in self.web.folder.rglob("*.*")]
        body = {
            "id": name,
            "sha": commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": file.as_posix()} for file in sorted(files)],
        }
        status = 200 if commit else 404
        self._send(status, json.dumps(body).encode(), _missing("RevisionNotFound", status))

    def _entry(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        name = path.relative_to(self.web.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": "0" * 40, "size": path.stat().st_size}

    def _file(self, path: Path, *, with_body: bool) -> None:
        if not path.is_file():
            self._send(404, b"", _missing("EntryNotFound", 404))
            return
        content = path.read_bytes()
        headers = {
            "ETag": f'"{hash(content):x}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            self._send(200, content, headers, with_body=with_body)
            return
        start, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers, with_body=with_body)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.web.bytes_sent += len(body)
            self.wfile.write(body)


def _missing(code: str, status: int) -> dict[str, str]:
    return {"X-Error-Code": code} if status == 404 else {}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server of this test's own, for the folder ``web``."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    folder = tmp_path / "web"
    folder.mkdir()
    handler.web = served = Web(folder, f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def turns(number: int) -> list[dict[str, str]]:
    """One question and its answer."""
    return [
        {"role": "user", "content": f"Où est le n° {number}?"},
        {"role": "assistant", "content": f"Là: {number} ☃"},
    ]


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines; what is no object is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., DatasetResult]:
    """Prepare a data set whose only split, ``train``, serves for all."""

    def run(path: Path | str, **values: Any) -> DatasetResult:
        chosen = {"train_split": "train", "test_split": "train", "generation_split": None}
        spec = DatasetSpec(path=str(path), **{"percentage": 100, **chosen, **values})
        return download_data(spec, tmp_path / "out")

    return run


def rows_of(result: DatasetResult) -> list[list[dict[str, str]]]:
    """The conversations of the split ``train``."""
    text = Path(result.file("train").path).read_text(encoding="utf-8")
    return [json.loads(line)["messages"] for line in text.splitlines()]
