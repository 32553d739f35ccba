"""A deployment's container without a model: it speaks the protocol, and does as it is asked.

The name of the model says how it comes up, the last message of a request what becomes of that.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from azureml_emulator.processes import exit_with_parent

REQUEST: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
PLACE = Path(sys.argv[1]).parent


class Handler(BaseHTTPRequestHandler):
    """Answers with the model's name and the process."""

    def do_POST(self) -> None:
        """Do what the last message says."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        deed, _, argument = body["input_data"]["input_string"][-1]["content"].partition(" ")
        print(f"asked to {deed}")
        if deed == "die":
            os._exit(7)
        if deed == "wait":
            until(PLACE.parent / argument)
        status = int(argument) if deed == "answer" else 200
        said = json.dumps({"output": REQUEST["name"], "pid": os.getpid()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def main() -> int:
    """Come up as the model's name says."""
    exit_with_parent()
    print(f"process {os.getpid()}")
    if REQUEST["name"] == "fails":
        print("2026-11-21T10:00:00 E [1] azmlinfsrv - fails:1 is no MLflow model {at all}")
        return 1
    if REQUEST["name"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if REQUEST["name"] == "hangs":
        time.sleep(600)
    if REQUEST["name"] == "waits":
        until(PLACE / "go")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    part = PLACE / "port.part"
    part.write_text(str(server.server_port))
    part.rename(PLACE / "port")
    server.serve_forever()
    return 0


def until(file: Path) -> None:
    """Wait for *file*."""
    while not file.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
