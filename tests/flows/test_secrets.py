"""What opens doors stays where it is: no key, token, signature or credential is ever written down.

The emulator hands out the real ones of a run. They are looked for, byte by byte and in the forms
that text takes on its way, in all that the run and its Prefect server leave.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from azureml_emulator.environment import write_client_files

BLOB = r"\.blob\.localhost/"
EXPIRED = {"code": "ExpiredAuthenticationToken", "message": "The access token has expired."}
# Each shows an answer, or an address, with a secret in it to whoever tells of the error.
ONCE: list[dict[str, Any]] = [
    {"match": {"path": "/listSecrets$"}, "nth": [1], "effect": {"truncate": 185}},
    {"match": {"path": "/listKeys$"}, "nth": [1], "effect": {"truncate": 70}},
    {"match": {"method": "GET", "path": BLOB}, "nth": [1], "effect": {"status": 403}},
    {"match": {"path": "/history/"}, "nth": [2], "effect": {"status": 401, "error": EXPIRED}},
]
OFTEN: dict[str, tuple[int, dict[str, Any]]] = {
    "the storage refuses the data": (
        1,
        {"match": {"method": "PUT", "path": BLOB}, "effect": {"status": 403}},
    ),
    "the connection to the storage breaks": (
        0,
        {"match": {"method": "PUT", "path": BLOB}, "nth": [1, 2, 3, 4], "effect": {"reset": True}},
    ),
    "the logs break off": (
        0,
        {"match": {"method": "GET", "path": BLOB}, "nth": [1, 2, 3, 4], "effect": {"reset": True}},
    ),
    "the keys are cut short": (1, {"match": {"path": "/listKeys$"}, "effect": {"truncate": 70}}),
    "the model refuses its key": (
        1,
        {"match": {"path": "^/score/"}, "effect": {"status": 401, "body": "no such key"}},
    ),
    "the token is cut short": (
        2,
        {"match": {"path": "^/msi/token$"}, "effect": {"truncate": 200}},
    ),
}
DECOYS = {
    "AZURE_CLIENT_SECRET": "decoy~client.secret-8Q_0123456789abcdef",
    "HF_TOKEN": "hf_decoyDecoyDecoyDecoyDecoyDecoyDe",
}
LOOKS_SECRET = re.compile(
    rb"eyJ[\w-]{10,}\.eyJ|(?i:\bsig(?:=|%3D)[\w%+/-]{20}|\bbearer\s+[\w.~+/-]{16})"
)


class Secrets:
    """What the emulator hands out, by what it is."""

    def __init__(self, emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        inner = emulator.server.emulator
        tokens, put = inner.tokens, inner.store.put
        issue, sign = tokens.issue, tokens.signature
        self.found: dict[str, set[str]] = {
            "identity header": {tokens.identity_header},
            "signing key": {(emulator.state / "signing.key").read_text()},
            "decoy": set(DECOYS.values()),
            "token": set(),
            "SAS": set(),
            "endpoint key": set(),
        }

        def issue_seen(*args: Any, **options: Any) -> Any:
            token = issue(*args, **options)
            self.found["token"].add(token.rpartition(".")[2])
            return token

        def sign_seen(text: str) -> Any:
            signature = sign(text)
            self.found["SAS"].add(signature)
            return signature

        def put_seen(kind: str, key: str, body: dict[str, Any], **options: Any) -> None:
            self.found["endpoint key"].update(body.get("_keys", {}).values())
            put(kind, key, body, **options)

        monkeypatch.setattr(tokens, "issue", issue_seen)
        monkeypatch.setattr(tokens, "signature", sign_seen)
        monkeypatch.setattr(inner.store, "put", put_seen)

    def leaks(self, places: Iterator[tuple[str, bytes]]) -> list[str]:
        """Return which secret stands where."""
        needles = [
            (kind, form)
            for kind, secrets in self.found.items()
            for secret in secrets
            for form in forms(secret)
        ]
        leaks = set()
        for place, data in places:
            leaks |= {f"{kind} in {place}" for kind, form in needles if form in data}
            if found := LOOKS_SECRET.search(data):
                around = data[max(0, found.start() - 40) : found.end() + 40]
                leaks.add(f"{around!r} in {place}")
        return sorted(leaks)


def forms(secret: str) -> set[bytes]:
    """Return a secret as it is, and as addresses, pages and base64 have it."""
    raw, quoted = secret.encode(), quote(secret, safe="")
    texts = {secret, quoted, quoted.lower() if "%" in quoted else quoted, html.escape(secret)}
    return {text.encode() for text in texts} | {raw.hex().encode()} | set(_in_base64(raw))


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """Yield what stays the same whatever stands before and after, for each of three offsets."""
    for before, start in ((0, 0), (1, 2), (2, 3)):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw).rstrip(b"=")[start:-1]


def written(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file, and every row of a database: a long text lies in pieces in its file."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()
            if path.suffix == ".db":
                yield f"rows of {path}", b"\n".join(_rows(path))


def _rows(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    yield value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
def secrets(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """The secrets of this test's emulator, from before its first answer."""
    return Secrets(emulator, monkeypatch)


def run(emulator: Any, folder: Path) -> tuple[int, list[Path]]:
    """Run ``finetune run`` as a person does; return its exit code and all that it wrote to."""
    for name in ("home", "tmp", "runs", "cache"):
        (folder / name).mkdir()
    command = [sys.executable, "-m", "cli", "run", "--config", "profiles/local.yaml"]
    for setting in ("evaluation.baseline=false", "evaluation.conversations=1"):
        command += ["--set", setting]
    with (folder / "runs" / "output.log").open("w") as log:
        ended = subprocess.run(
            [*command, "--report", str(folder / "runs" / "latest" / "report.json")],
            env={
                **os.environ,
                **DECOYS,
                "HOME": str(folder / "home"),
                "TMPDIR": str(folder / "tmp"),
                "FINETUNE_CACHE": str(folder / "cache"),
                "PREFECT_LOGGING_LEVEL": "DEBUG",
                "PREFECT_LOGGING_EXTRA_LOGGERS": "lifecycle",
            },
            stdout=log,
            stderr=log,
            check=False,
        )
    assert [] == emulator.open_meters()
    wrote = [folder / name for name in ("home", "tmp", "runs", "cache")]
    return ended.returncode, [*wrote, Path(os.environ["PREFECT_HOME"])]


def test_a_run_with_faults_writes_no_secret_down(
    emulator: Any, secrets: Secrets, prefect_server: str, tmp_path: Path
) -> None:
    """Not in Prefect's database, results, logs and artifacts; nor in reports, caches, elsewhere."""
    emulator.faults(*ONCE)

    code, wrote = run(emulator, tmp_path)

    assert 0 == code, (tmp_path / "runs" / "output.log").read_text()[-3000:]
    assert [1] * len(ONCE) == [rule["struck"] for rule in emulator.server.emulator.faults.rules()]
    assert all(secrets.found.values()), secrets.found
    leaks = secrets.leaks(written(*wrote))
    assert [] == leaks, "\n".join(leaks)
    log = json.dumps(emulator.requests()).encode()
    assert [] == secrets.leaks(iter([("the emulator's log of requests", log)]))


@pytest.mark.long
@pytest.mark.parametrize("trouble", OFTEN)
def test_a_run_in_trouble_writes_no_secret_down(
    emulator: Any, secrets: Secrets, prefect_server: str, tmp_path: Path, trouble: str
) -> None:
    """An error, with all that caused it, is what people copy into a report."""
    expected, rule = OFTEN[trouble]
    emulator.faults(rule)

    code, wrote = run(emulator, tmp_path)

    assert expected == code, (tmp_path / "runs" / "output.log").read_text()[-3000:]
    leaks = secrets.leaks(written(*wrote))
    assert [] == leaks, "\n".join(leaks)


def test_client_env_alone_holds_the_credential(emulator: Any, secrets: Secrets) -> None:
    """It is for its owner's eyes only; config.json is for everybody."""
    write_client_files(emulator.server)
    private = emulator.state / "client.env"
    shared = [emulator.state / "config.json", emulator.server.emulator.certificates.bundle]

    assert 0o600 == stat.S_IMODE(private.stat().st_mode)
    assert ["identity header in client.env"] == secrets.leaks(
        iter([("client.env", private.read_bytes())])
    )
    assert [] == secrets.leaks((path.name, path.read_bytes()) for path in shared)


@pytest.mark.parametrize("place", ["results/x.json", "server.db", "report.html"])
def test_the_search_finds_a_secret_in_each_form(
    secrets: Secrets, tmp_path: Path, place: str
) -> None:
    """A search that finds nothing proves something only if it can find."""
    [header] = secrets.found["identity header"]
    secrets.found["SAS"].add(sas := "a+b/" * 10 + "cc=")
    quoted, wrapped = quote(sas, safe=""), base64.b64encode(f"({header})".encode()).decode()
    folder = tmp_path / "searched"
    path = folder / place
    path.parent.mkdir(parents=True)

    for text in (header, quoted, quoted.lower(), wrapped, "?sig=" + "a%2B" * 9):
        if path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS log (line TEXT)")
                database.execute("INSERT INTO log VALUES (?)", ["x" * 4050 + text + "x" * 9000])
        else:
            path.write_text(f"…{text}…")
        assert secrets.leaks(written(folder)), text
        path.unlink()
    assert [] == secrets.leaks(written(folder))
