"""A Prefect server that is configured is asked before a run relies on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cli.server import check_prefect_server
from lifecycle.errors import ConfigurationError

OWN = "starts a server of its own"


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path begins with; "html" with a page, as a proxy does.

    "locked" is healthy and asks for a password, as Prefect's own server does.
    """

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        if kind == "locked":
            self._answer(200 if self.path.endswith("/health") else 401, "true")
        elif kind == "html":
            self._answer(200, "<html>Sign in</html>")
        else:
            self._answer(int(kind), "<html>Sorry</html>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def no_prefect() -> Iterator[str]:
    """A server on loopback that is not Prefect's; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refusal(url: str) -> ConfigurationError:
    """What is said of a server."""
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ConfigurationError) as refused:
        check_prefect_server(url, seconds=4)
    assert "PREFECT_API_URL" == refused.value.where
    assert OWN in refused.value.remedy
    return refused.value


def test_a_server_that_answers_is_taken(prefect_server: str) -> None:
    """The real one: a read, and nothing else."""
    check_prefect_server(prefect_server)


@pytest.mark.parametrize(
    ("path", "said", "remedy"),
    [
        ("401", "status 401", "PREFECT_API_KEY"),
        ("403", "status 403", "PREFECT_API_AUTH_STRING"),
        ("locked", "status 401", "PREFECT_API_AUTH_STRING"),
        ("404", "status 404", "ends in /api"),
        ("500", "status 500", "own log"),
        ("503", "within 4 seconds", "Start it"),
        ("html", "not answer as Prefect's API does", "ends in /api"),
    ],
)
def test_what_is_no_server_of_prefects_is_refused_with_its_remedy(
    no_prefect: str, path: str, said: str, remedy: str
) -> None:
    """An error page, a proxy's sign-in, a password: each says what to do; none is waited for."""
    error = refusal(f"{no_prefect}/{path}/api")

    assert said in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("url", "said", "remedy"),
    [
        ("http://127.0.0.1:9/api", "Connection refused", "Start it"),
        ("127.0.0.1:4200/api", "no address", "such as http://"),
        ("nonsense", "no address", "such as http://"),
        ("http://me:hidden@127.0.0.1:9/api", "http://127.0.0.1:9/api", "Start it"),
    ],
)
def test_an_address_where_nobody_answers_is_refused(url: str, said: str, remedy: str) -> None:
    """With what is wrong with it, and without a password in it."""
    error = refusal(url)

    assert said in error.message
    assert remedy in error.remedy
    assert "hidden" not in str(error)


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://127.0.0.1:9/api", "unset PREFECT_API_URL"), ("http://[::1", "Invalid IPv6 URL")],
)
def test_the_run_is_refused_and_nothing_was_asked_of_azure(
    tmp_path: Path, url: str, said: str
) -> None:
    """In a process of its own, with the setting where users have it: exit 2, no traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "run", "--config", "profiles/local.yaml"],
        env={**os.environ, "PREFECT_API_URL": url, "FINETUNE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == ended.returncode, ended.stderr
    assert "refused, nothing was created [ConfigurationError]" in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
