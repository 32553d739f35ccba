"""`make serve` as a person starts it, and a real browser before it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PICTURES = Path("runs/browser")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser that is asked by nobody but the test, and asks nobody else.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_START_SECONDS = 180
_STOP_SECONDS = 180


class Served:
    """A running `make serve`.

    Args:
        ui: Where its UI is.
        folder: What it keeps, its logs among it.
    """

    def __init__(self, ui: str, folder: Path) -> None:
        self.ui = ui
        self._folder = folder

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return the runs of a deployment that have begun, newest first."""
        found: list[dict[str, Any]] = self._post(
            "flow_runs/filter",
            {
                "deployments": {"name": {"any_": [deployment]}},
                "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
                "sort": "START_TIME_DESC",
            },
        )
        return found

    def begun(self, deployment: str, number: int = 1) -> str:
        """Wait until so many runs of a deployment have begun, and return the newest one's id."""

        def look() -> str | None:
            runs = self.runs(deployment)
            return str(runs[0]["id"]) if len(runs) >= number else None

        return str(self.wait(look))

    def ended(self, run: str, seconds: float = 600) -> str:
        """Wait until a run has ended, and return the name of its state."""

        def look() -> str | None:
            with _opener().open(f"{self.ui}/api/flow_runs/{run}", timeout=30) as answer:
                found = json.load(answer)
            return found["state_name"] if found["state_type"] in ENDED else None

        return str(self.wait(look, seconds))

    def artifact(self, run: str, key: str, told: str = "") -> str | None:
        """Return the id of a run's artifact of this key that says *told*; None before it does."""
        chosen = {"flow_runs": {"id": {"any_": [run]}}, "artifacts": {"key": {"any_": [key]}}}
        found = self._post("artifacts/filter", chosen)
        return next((str(one["id"]) for one in found if told in one["description"]), None)

    def meters(self, kind: str) -> list[str]:
        """Return what of a kind is billed now on the emulator."""
        said = (self._folder / "emulator" / "client.env").read_text()
        exported = dict(re.findall(r"^export (\w+)=['\"]?([^'\"\n]*)", said, re.MULTILINE))
        trusted = ssl.create_default_context(cafile=exported["SSL_CERT_FILE"])
        opener = _opener(urllib.request.HTTPSHandler(context=trusted))
        with opener.open(f"{exported['AZUREML_EMULATOR_URL']}/_emulator/ledger") as answer:
            meters = json.load(answer)["meters"]
        return [one["resource"] for one in meters if one["kind"] == kind and not one["stopped"]]

    def wait(self, look: Callable[[], Any], seconds: float = 300) -> Any:
        """Wait until *look* sees something, and return that."""
        end = time.monotonic() + seconds
        while not (seen := look()):
            assert time.monotonic() < end, f"not within {seconds:g} s\n{self.said()}"
            time.sleep(0.5)
        return seen

    def said(self) -> str:
        """Return the end of its logs, for a test that fails."""
        logs = sorted((self._folder / "logs").glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in logs)

    def _post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.ui}/api/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with _opener().open(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`make serve`, until the module's tests are over; Ctrl-C must end it, and leave nothing."""
    folder, port = tmp_path_factory.mktemp("serve"), _free_port()
    # Without the session's Prefect, and without what a make around these tests says to its own.
    others = ("PREFECT_", "MAKE", "MFLAGS")
    usual = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    command = [
        "make",
        # The environment is the one that these tests run in: it is set up.
        "--old-file=.venv/.installed",
        "serve",
        f"BIN={Path(sys.executable).parent}",
        f"STATE={folder}",
        f"PORT={port}",
    ]
    with (folder / "make.log").open("w+") as log:
        make = subprocess.Popen(
            command, env=usual, stdout=log, stderr=log, start_new_session=True, text=True
        )
        served = Served(f"http://127.0.0.1:{port}", folder)
        try:
            end = time.monotonic() + _START_SECONDS
            while "\nready " not in f"\n{(folder / 'make.log').read_text()}":
                assert make.poll() is None, (folder / "make.log").read_text()
                assert time.monotonic() < end, served.said()
                time.sleep(0.5)
            yield served
        finally:
            # As a terminal's Ctrl-C does: to all of them.
            os.killpg(make.pid, signal.SIGINT)
            try:
                make.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(make.pid, signal.SIGKILL)
                raise


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, or the one that Playwright brings; without one it fails."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a browser that has never been here."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    # A machine that is busy answers late.
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def keep(page: Page) -> Callable[..., None]:
    """Keep what is seen, or a part of it, as runs/browser/NAME.png, to be looked at."""
    PICTURES.mkdir(parents=True, exist_ok=True)

    def picture(name: str, part: Locator | None = None) -> None:
        page.wait_for_timeout(700)  # what slides in has come
        (page if part is None else part).screenshot(path=str(PICTURES / f"{name}.png"))

    return picture


def _opener(*handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """What reaches this machine whatever proxy the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
