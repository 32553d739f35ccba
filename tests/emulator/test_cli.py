"""The command line, as a shell sees it: `serve` until told to stop, `exec` around one command."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import azureml_emulator
import certifi
import pytest
from azureml_emulator.executors.requirements import check_disk

EMULATOR = [sys.executable, "-m", "azureml_emulator"]

# A command that waits for a signal, asks the emulator for its ledger, and says what it saw.
WAIT = """
import os, signal, sys, urllib.request
numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("up", flush=True)
number = signal.sigwait(numbers)
url = os.environ["AZUREML_EMULATOR_URL"] + "/_emulator/ledger"
print(signal.Signals(number).name, urllib.request.urlopen(url).status, flush=True)
sys.exit(40 + number)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell, with a temporary folder that a test can look into."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    path = os.pathsep.join(sys.path)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(scratch)}


def _run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMULATOR, *arguments], env=environ, capture_output=True, text=True, check=False
    )


@contextmanager
def _started(
    environ: dict[str, str], *arguments: str, group: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Start it; at the end it must have gone by itself, and its process group be empty."""
    process = subprocess.Popen(
        [*EMULATOR, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    try:
        yield process
        process.wait(20)
        if group:
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=20)


def _left(environ: dict[str, str]) -> list[Path]:
    return list(Path(environ["TMPDIR"]).iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_says_ready_and_stops_when_told(
    environ: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """One line beginning `ready`, the client's files, and then exit 0 without another word."""
    state = tmp_path / "state"
    with _started(environ, "serve", "--state", str(state), group=True) as process:
        line = _line(process)
        mode = stat.S_IMODE((state / "client.env").stat().st_mode)
        config = json.loads((state / "config.json").read_text())
        process.send_signal(number)

    assert line.startswith("ready https://localhost:")
    assert line.endswith(f" state={state}\n")
    assert (0o600, "emulator") == (mode, config["workspace_name"])
    assert (0, ("", "")) == (process.returncode, _rest(process))


MAKE = """
import json, os, sys, urllib.request
url, workspace = os.environ["AZUREML_EMULATOR_URL"], sys.argv[1]
asked = urllib.request.Request(
    os.environ["IDENTITY_ENDPOINT"] + "?api-version=2019-08-01&resource=" + url,
    headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]},
)
token = json.load(urllib.request.urlopen(asked))["access_token"]
body = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
request = urllib.request.Request(
    url + workspace + "/onlineEndpoints/chat-1?api-version=2024-10-01",
    method=sys.argv[2],
    data=json.dumps(body).encode() if sys.argv[2] == "PUT" else None,
    headers={"Authorization": "Bearer " + token},
)
print(json.load(urllib.request.urlopen(request))["name"])
"""


def test_a_state_folder_is_kept_from_run_to_run(environ: dict[str, str], tmp_path: Path) -> None:
    """What one emulator acknowledged, the next one on the same folder has."""
    from azureml_emulator.settings import WORKSPACE_ID

    options = ["exec", "--state", str(tmp_path / "state"), "--"]
    made = _run(environ, *options, sys.executable, "-c", MAKE, WORKSPACE_ID, "PUT")
    read = _run(environ, *options, sys.executable, "-c", MAKE, WORKSPACE_ID, "GET")

    assert ("chat-1\n", "chat-1\n") == (made.stdout, read.stdout), made.stderr + read.stderr


def test_a_killed_emulator_has_lost_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    """What was acknowledged before `kill -9` is there after it, and the folder can be used."""
    from azureml_emulator.settings import WORKSPACE_ID

    state = tmp_path / "state"
    with _started(environ, "serve", "--state", str(state), group=True) as process:
        _line(process)
        make = ["sh", "-c", '. "$0"; exec "$@"', str(state / "client.env")]
        make += [sys.executable, "-c", MAKE, WORKSPACE_ID, "PUT"]
        made = subprocess.run(make, env=environ, capture_output=True, text=True, check=True)
        process.kill()
    options = ["exec", "--state", str(state), "--"]
    read = _run(environ, *options, sys.executable, "-c", MAKE, WORKSPACE_ID, "GET")

    assert ("chat-1\n", "chat-1\n") == (made.stdout, read.stdout), read.stderr


def test_exec_exits_as_the_command_did(environ: dict[str, str]) -> None:
    """And passes through what it reads and writes; nothing of the emulator's is left."""
    done = subprocess.run(
        [*EMULATOR, "exec", "--", "sh", "-c", "cat; echo err >&2; exit 7"],
        env=environ,
        input="in",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (7, "in", "err\n") == (done.returncode, done.stdout, done.stderr)
    assert [] == _left(environ)


def test_exec_gives_the_command_its_environment(environ: dict[str, str]) -> None:
    """The state's path, a ready server, and no foreign variable."""
    script = (
        'test -f "$AZUREML_EMULATOR_STATE/client.env" && '
        'echo "$AZUREML_EMULATOR_STATE" "${AZURE_CLIENT_ID-gone}"'
    )
    done = _run(environ | {"AZURE_CLIENT_ID": "decoy"}, "exec", "--", "sh", "-c", script)

    assert done.stdout.startswith(f"{environ['TMPDIR']}/azureml-emulator-")
    assert done.stdout.endswith(" gone\n")


def test_exec_takes_the_command_as_it_is(environ: dict[str, str]) -> None:
    """Options and dashes after the first `--` are the command's own."""
    done = _run(environ, "exec", "--latency", "manual", "--", "echo", "--port", "1", "--", "x")

    assert "--port 1 -- x\n" == done.stdout


def test_ctrl_c_is_the_commands_and_the_emulator_outlives_it(environ: dict[str, str]) -> None:
    """The whole group is interrupted; the command still reaches the emulator and decides."""
    with _started(environ, "exec", "--", sys.executable, "-c", WAIT, group=True) as process:
        assert "up\n" == _line(process)
        os.killpg(process.pid, signal.SIGINT)

    assert (42, ("SIGINT 200\n", "")) == (process.returncode, _rest(process))
    assert [] == _left(environ)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_the_emulator_alone_is_told_the_command_is_told(
    environ: dict[str, str], number: signal.Signals
) -> None:
    """A supervisor's SIGTERM reaches the command, which may clean up with the emulator there."""
    with _started(environ, "exec", "--", sys.executable, "-c", WAIT, group=True) as process:
        assert "up\n" == _line(process)
        process.send_signal(number)

    assert (40 + number, (f"{number.name} 200\n", "")) == (process.returncode, _rest(process))
    assert [] == _left(environ)


def test_the_command_is_interrupted_by_default(environ: dict[str, str]) -> None:
    """It does not inherit the emulator's own deafness to Ctrl-C."""
    command = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = _run(environ, "exec", "--", sys.executable, "-c", command)

    assert "True\n" == done.stdout


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["no-such-command"], 127, "azureml-emulator: no-such-command: command not found\n"),
        (["/etc"], 126, "azureml-emulator: /etc: Permission denied\n"),
    ],
)
def test_exec_has_a_shells_codes(
    environ: dict[str, str], command: list[str], code: int, said: str
) -> None:
    """Death by a signal, a command that is not there, one that cannot be run."""
    done = _run(environ, "exec", "--", *command)

    assert (code, "", said) == (done.returncode, done.stdout, done.stderr)
    assert [] == _left(environ)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: verb"),
        (["start"], "invalid choice: 'start'"),
        (["serve"], "the following arguments are required: --state"),
        (["serve", "--state", "x", "--", "true"], "serve: takes no command"),
        (["exec"], "exec: say -- and then the command"),
        (["exec", "--"], "exec: say -- and then the command"),
        (["exec", "true"], "unrecognized arguments: true"),
        (["exec", "--fast", "--", "true"], "unrecognized arguments: --fast"),
        (["exec", "--port", "65536", "--", "true"], "65536 is not between 0 and 65535"),
        (["exec", "--port", "x", "--", "true"], "x is not between 0 and 65535"),
        (["exec", "--jobs", "magic", "--", "true"], "invalid choice: 'magic'"),
        (["exec", "--weights", "mine", "--", "true"], "mine is not NAME=FOLDER"),
        (["exec", "--weights", "mine=/etc", "--", "true"], "/etc cannot back a model"),
        (["exec", "--latency", "quick", "--", "true"], "quick is neither instant, realistic,"),
        (["exec", "--latency", "{broken}", "--", "true"], "--latency: "),
        (["exec", "--catalog", "2001", "--", "true"], "2001 is neither today, 2024 nor a file"),
        (["exec", "--catalog", "{broken}", "--", "true"], "--catalog: "),
        (["exec", "--state", "{broken}/state", "--", "true"], "broken.yaml/state: Not a directory"),
    ],
)
def test_what_it_cannot_start_with_is_said_in_one_line(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    """Exit 2, one line that names it, no traceback, nothing left behind."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: {2\n")
    done = _run(environ, *[one.format(broken=broken) for one in arguments])

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("azureml-emulator: ")
    assert said in done.stderr
    assert 1 == done.stderr.count("\n")
    assert [] == _left(environ)


def test_training_without_its_packages_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    """In one line with the remedy; the other way to run jobs needs none of them."""
    missing = ("torch", "peft")
    installed = Path(certifi.__file__).parents[1]
    for package in installed.iterdir():
        if not package.name.startswith(missing):
            (tmp_path / "bare" / package.name).parent.mkdir(exist_ok=True)
            (tmp_path / "bare" / package.name).symlink_to(package)
    ours = Path(azureml_emulator.__file__).parents[1]
    bare = environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "bare"), str(ours)])}
    # -S: without the site-packages of this Python.
    command = [sys.executable, "-S", "-m", "azureml_emulator", "exec"]
    run = partial(subprocess.run, env=bare, capture_output=True, text=True, check=False)
    refused = run([*command, "--", "true"])
    scripted = run([*command, "--jobs", "scripted", "--", "true"])

    assert (2, 0) == (refused.returncode, scripted.returncode), scripted.stderr
    assert refused.stderr.startswith("azureml-emulator: --jobs train needs torch, peft, which ")
    assert "pip install 'azureml-emulator[train]', or say --jobs scripted\n" in refused.stderr
    assert 1 == refused.stderr.count("\n")
    assert [] == _left(environ)


def test_a_disk_that_is_too_full_to_train_is_refused(tmp_path: Path) -> None:
    """With what there is, what is needed, and what to do; the folder need not be there yet."""
    check_disk(tmp_path / "not" / "yet", needed=1)
    with pytest.raises(ValueError, match="make room, name another folder with --state, or") as told:
        check_disk(tmp_path / "not" / "yet", needed=10**18)

    assert f"needs 1e+09 GB of free disk and {tmp_path} has " in str(told.value)


def test_starting_imports_nothing_heavy(environ: dict[str, str]) -> None:
    """The emulator's own process never loads what only its containers need."""
    heavy = "{'torch', 'transformers', 'peft', 'mlflow', 'pandas', 'numpy'}"
    script = (
        "import sys; from azureml_emulator.cli import main; "
        f"main(['exec', '--', 'true']); print(sorted(set(sys.modules) & {heavy}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )

    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_a_port_that_is_taken_is_said(environ: dict[str, str]) -> None:
    """With the port and the option to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run(environ, "exec", "--port", str(port), "--", "true")

    assert 2 == done.returncode
    assert f"azureml-emulator: port {port} is taken: " in done.stderr
    assert 1 == done.stderr.count("\n")


def test_a_state_folder_in_use_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    """Two emulators on one folder would spoil each other's state."""
    with _started(environ, "serve", "--state", str(tmp_path), group=True) as process:
        _line(process)
        done = _run(environ, "exec", "--state", str(tmp_path), "--", "true")
        process.terminate()

    assert (2, f"azureml-emulator: another emulator is running on {tmp_path}\n") == (
        done.returncode,
        done.stderr,
    )


def test_a_folder_that_cannot_be_removed_does_not_change_the_exit_code(
    environ: dict[str, str],
) -> None:
    """A command that leaves something odd behind is told of, in one line, and exits as it did."""
    leave = 'mkdir "$AZUREML_EMULATOR_STATE.d"; rm -r "$AZUREML_EMULATOR_STATE"; exit 3'
    done = _run(environ, "exec", "--", "sh", "-c", leave)

    assert 3 == done.returncode
    assert "could not be removed" in done.stderr
    assert 1 == done.stderr.count("\n")


def test_help_names_every_option(environ: dict[str, str]) -> None:
    """The interface that scripts outside the repository rely on."""
    told = {verb: _run(environ, verb, "--help").stdout for verb in ("serve", "exec")}
    options: Any = ("--state", "--port", "--jobs", "--latency", "--catalog", "--weights")

    assert [] == [(verb, one) for verb, text in told.items() for one in options if one not in text]
    assert "exec [options] -- COMMAND" in told["exec"]


def test_the_readme_names_every_option_control_route_and_fault() -> None:
    """What a user can ask for is written down, and nothing else."""
    from azureml_emulator import faults
    from azureml_emulator.services import control

    readme = (Path(__file__).parents[2] / "emulator" / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}
    routes = {f"{route.method} {route.path}" for route in control.ROUTES}
    options = {row.split()[0] for row in rows if row.startswith("--")}

    assert {"--state", "--port", "--jobs", "--latency", "--catalog", "--weights"} == options
    assert routes == {row for row in rows if " /_emulator/" in row}
    assert faults.EFFECTS == {row for row in rows if row.isidentifier()}
