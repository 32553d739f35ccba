"""What a run can do without fails all at once, and the run completes with a warning for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DENIED = {"status": 403, "error": {"code": "AuthorizationFailed", "message": "You may not."}}


class _Proxy(ThreadingHTTPServer):
    """Passes on what Prefect is asked, but for artifacts and events."""

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_url = server.removesuffix("/api")
        self.refused = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        proxy: Any = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/api/artifacts" in self.path or "/api/events" in self.path:
            proxy.refused += 1
            return self._answer(500, b'{"detail": "not here"}', "application/json")
        request = urllib.request.Request(
            proxy.server_url + self.path, data=body or None, method=self.command
        )
        for name in ("Content-Type", "Accept", "X-PREFECT-API-VERSION"):
            if name in self.headers:
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request) as answer:
                return self._answer(
                    answer.status, answer.read(), answer.headers.get("Content-Type", "")
                )
        except urllib.error.HTTPError as error:
            return self._answer(error.code, error.read(), error.headers.get("Content-Type", ""))

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def proxy(prefect_server: str) -> Iterator[_Proxy]:
    """A Prefect that takes no artifact and no event."""
    server = _Proxy(prefect_server)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_run_completes_without_every_courtesy(
    emulator: Any, proxy: _Proxy, tmp_path: Path
) -> None:
    """Metrics, history, sizes, artifacts, events refused: trained, registered, tried, deleted."""
    emulator.faults(
        *({"match": {"path": path}, "effect": DENIED} for path in ("/mlflow/", "/vmSizes$")),
        {"match": {"path": "/history/"}, "effect": DENIED},
    )
    report = tmp_path / "report.json"

    done = subprocess.run(
        [
            *(sys.executable, "-m", "cli", "run", "--config", "profiles/local.yaml"),
            *("--set", "evaluation.baseline=false", "--set", "evaluation.conversations=2"),
            *("--report", str(report)),
        ],
        env={
            **os.environ,
            "PREFECT_API_URL": f"http://127.0.0.1:{proxy.server_port}/api",
            "FINETUNE_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert 0 == done.returncode, done.stderr[-3000:]
    document = json.loads(report.read_text())
    assert "Completed" == document["state"]
    assert document["registered_model"]["name"]
    assert document["responses"]
    assert True is document["endpoint"]["deleted"]
    assert 0 == emulator.ledger()["open"]
    assert proxy.refused
    lost = {
        "metrics": "metrics of ft-",
        "history": "run history of ft-",
        "sizes": "VM sizes",
        "data": "page about the data",
        "progress": "progress of the training",
        "report": "keeping the run's report",
    }
    for what, words in lost.items():
        assert 1 == sum(words in warning for warning in document["warnings"]), what
    assert document["warnings"][0] in report.with_suffix(".html").read_text()
