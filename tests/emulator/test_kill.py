"""SIGKILL in the middle of work: what was acknowledged is there afterwards, and nothing torn."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from azureml_emulator import settings as names
from azureml_emulator.tokens import Tokens

from tests.emulator.submitting import TRAIN, jobs_catalog
from tests.emulator.submitting import body as job_body

CLIENTS = 6
ENDPOINT = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
LATENCY = '{"*": immediate, endpoint.create: 0.05, endpoint.delete: 0.05}'


class Client:
    """One client: it writes, each time something else, and keeps what it was told.

    Args:
        state: The emulator's state folder.
        url: Where it is.
        number: Its own, so that nobody else touches what it makes.
    """

    def __init__(self, state: Path, url: str, number: int) -> None:
        self._url, self._number = url, number
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(state / "tls" / "ca-bundle.pem")
        token = Tokens(state).issue(url, now=time.time())
        self._headers = {"Authorization": f"Bearer {token}"}
        self._sas = ""
        self.endpoints: dict[str, bool] = {}
        self.jobs: list[str] = []
        self.blob = f"client-{number}"
        self.versions = [b""]
        self.told = 0

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send one request to a whole path, or to one below the workspace."""
        place = path if path.startswith("/") else f"{names.WORKSPACE_ID}/{path}"
        parameters = {} if "?" in path else {"api-version": "2024-10-01"}
        return self._session.request(
            method,
            f"{self._url}{place}",
            params=parameters,
            json=body,
            headers=self._headers,
            timeout=20,
        )

    def at_blob(self, method: str, name: str, data: bytes | None = None) -> requests.Response:
        """Send one request to a blob, with a SAS."""
        if not self._sas:
            answer = self.ask("POST", "datastores/workspaceblobstore/listSecrets")
            self._sas = answer.json()["sasToken"]
        url = f"{self._url}/emulator.blob.localhost/azureml-blobstore/{name}?{self._sas}"
        headers = {"x-ms-blob-type": "BlockBlob"}
        return self._session.request(method, url, data=data, headers=headers, timeout=20)

    def work(self, seed: int) -> None:
        """Write until the emulator is gone."""
        chance = random.Random(seed)
        try:
            for round_ in itertools.count(1):
                self._make(f"kill-{self._number}-{round_}", job=round_ % 4 == 1)
                if round_ % 3 == 0:
                    self._delete(f"kill-{self._number}-{round_ - 2}")
                for _ in range(3):
                    self._overwrite(chance.randbytes(chance.randrange(1, 5000)))
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return

    def _make(self, name: str, *, job: bool) -> None:
        self._check(self.ask("PUT", f"onlineEndpoints/{name}", ENDPOINT), 201)
        self.endpoints[name] = True
        if job:
            self._check(self.ask("PUT", f"jobs/{name}", job_body()), 201)
            self.jobs.append(name)

    def _delete(self, name: str) -> None:
        del self.endpoints[name]  # until the answer is there, nobody knows
        answer = self.ask("DELETE", f"onlineEndpoints/{name}")
        # 409 while it is being created
        self.endpoints[name] = answer.status_code == 409
        if answer.status_code != 409:
            self._check(answer, 202)

    def _overwrite(self, data: bytes) -> None:
        self.versions = [*self.versions[-1:], data]
        self._check(self.at_blob("PUT", self.blob, data), 201)
        self.versions = [data]

    def _check(self, answer: requests.Response, status: int) -> None:
        assert answer.status_code == status, answer.text
        self.told += 1


@contextmanager
def _served(state: Path, catalog: str, latency: Path) -> Iterator[tuple[Any, str]]:
    command = [sys.executable, "-m", "azureml_emulator", "serve", "--state", str(state)]
    command += ["--jobs", "scripted", "--catalog", catalog, "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready"), ready
        yield process, ready.split()[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_kill_nine_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """Under load, twice over: every endpoint, job, blob, request and meter, and none half-way."""
    state, catalog, latency = tmp_path / "state", jobs_catalog(tmp_path), tmp_path / "latency.yaml"
    latency.write_text(LATENCY)
    chance = random.Random(seed)
    clients: list[Client] = []
    ledgers = []
    for kill in range(2):
        with _served(state, catalog, latency) as (process, url):
            young = [Client(state, url, kill * CLIENTS + number) for number in range(CLIENTS)]
            clients += young
            young[0].at_blob("PUT", TRAIN.partition("/paths/")[2], b'{"messages": []}\n')
            with ThreadPoolExecutor(CLIENTS) as pool:
                working = [pool.submit(client.work, seed) for client in young]
                time.sleep(1 + chance.random())
                ledgers.append(young[1].ask("GET", "/_emulator/ledger").json()["meters"])
                process.send_signal(signal.SIGKILL)
            for one in working:
                one.result()
    with _served(state, catalog, latency) as (_, url):
        asking = Client(state, url, -1)
        _wait_until_settled(asking)
        _compare_endpoints(asking, clients)
        _compare_meters(asking, ledgers)
        for client in clients:
            found = asking.at_blob("GET", client.blob)
            assert (found.content if found.ok else b"") in client.versions
        jobs = [name for client in clients for name in client.jobs]
        status = {asking.ask("GET", f"jobs/{name}").json()["properties"]["status"] for name in jobs}
        assert {"Completed"} == status
        logged = asking.ask("GET", "/_emulator/requests").json()["requests"]
        assert len(logged) >= sum(client.told for client in clients) > 50


def _compare_endpoints(asking: Client, clients: list[Client]) -> None:
    """What was made is there and billed, what was deleted is neither."""
    path = "onlineEndpoints?api-version=2024-10-01&count=10000"
    there = {one["name"] for one in asking.ask("GET", path).json()["value"]}
    made = {name for client in clients for name, alive in client.endpoints.items() if alive}
    gone = {name for client in clients for name, alive in client.endpoints.items() if not alive}
    billed = {
        row["resource"].rpartition("/")[2]
        for row in asking.ask("GET", "/_emulator/ledger").json()["meters"]
        if row["stopped"] is None
    }

    assert (set(), set()) == (made - there, gone & there)
    assert there == billed


def _compare_meters(asking: Client, ledgers: list[Any]) -> None:
    """No meter of an earlier day is missing or changed; each is the next one's beginning."""
    now = asking.ask("GET", "/_emulator/ledger").json()["meters"]
    for meters in ledgers:
        for before, after in zip(meters, now, strict=False):
            fixed = {"meter", "resource", "kind", "sku", "quantity", "usd_per_hour", "began"}
            if before["stopped"] is not None:
                fixed = set(before)
            assert {name: before[name] for name in fixed} == {name: after[name] for name in fixed}
        assert len(meters) <= len(now)


def _wait_until_settled(asking: Client) -> None:
    end = time.monotonic() + 60
    while asking.ask("GET", "/_emulator/timeline").json()["events"]:
        assert time.monotonic() < end, "what was under way did not go on"
        time.sleep(0.05)
