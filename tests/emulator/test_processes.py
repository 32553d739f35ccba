"""Containers: child processes that cannot outlive the emulator, and are told no secret."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from azureml_emulator.processes import Container, container_environment

MODULE = """
import os, signal, subprocess, sys, time
from azureml_emulator.processes import exit_with_parent

exit_with_parent()
if sys.argv[1:] == ["alone"]:
    time.sleep(600)
child = subprocess.Popen(["sleep", "600"])
if sys.argv[1:] == ["deaf"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1:] == ["polite"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(os.getpid(), child.pid, os.getcwd())
if sys.argv[1:] == ["ends"]:
    sys.exit(5)
time.sleep(600)
"""
PARENT = """
import sys, time
from pathlib import Path
from azureml_emulator.processes import Container

folder = Path(sys.argv[1])
Container("contained", [], log=folder / "log", scratch=folder / "scratch")
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def module_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``contained`` that a container can run."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "contained.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(modules), *sys.path]))


def contained(folder: Path, *arguments: str) -> Container:
    """Start a container in *folder*."""
    return Container("contained", arguments, log=folder / "log", scratch=folder / "scratch")


def first_line(folder: Path) -> list[str]:
    """Wait for the container's first line and return its words: two process ids and a folder."""
    end = time.monotonic() + 20
    while not (folder / "log").exists() or "\n" not in (text := (folder / "log").read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return text.split("\n")[0].split(" ")


def gone(*pids: str) -> bool:
    """Return whether none of the processes runs any more, after a moment if need be."""
    end = time.monotonic() + 10
    while _running(pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _running(pids: tuple[str, ...]) -> list[str]:
    command = ["ps", "-o", "stat=", "-p", ",".join(pids)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return [state for state in listed.stdout.split() if not state.startswith("Z")]


def test_it_runs_in_its_scratch_folder_and_writes_to_its_log(tmp_path: Path) -> None:
    """What was in the log before stays."""
    (tmp_path / "log").write_text("before\n")
    container = contained(tmp_path, "ends")

    assert 5 == container.wait(20)
    before, line, _ = (tmp_path / "log").read_text().split("\n")
    assert ("before", str(tmp_path / "scratch")) == (before, line.split(" ")[2])


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    """A container that ends by itself leaves no process of its own behind."""
    container = contained(tmp_path, "ends")
    container.wait(20)

    assert gone(*first_line(tmp_path)[:2])


@pytest.mark.parametrize(
    ("argument", "grace", "code"),
    [("", 0.0, -signal.SIGKILL), ("polite", 20.0, 7), ("deaf", 0.2, -signal.SIGKILL)],
)
def test_stop_ends_all_of_it(tmp_path: Path, argument: str, grace: float, code: int) -> None:
    """At once, or after a word and the time to heed it."""
    container = contained(tmp_path, argument)
    pids = first_line(tmp_path)[:2]
    began = time.monotonic()

    assert (None, code) == (container.poll(), container.stop(grace))
    assert gone(*pids)
    assert time.monotonic() - began < 10


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """Not even by `kill -9`, and neither does what it started."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    pids = first_line(tmp_path)[:2]
    parent.kill()
    parent.wait()

    assert gone(*pids)


def test_ctrl_c_is_not_for_it(tmp_path: Path) -> None:
    """It is in a session of its own, and deaf to SIGINT besides."""
    container = contained(tmp_path)
    pids = first_line(tmp_path)[:2]
    os.kill(container.pid, signal.SIGINT)
    time.sleep(0.1)

    assert (None, True) == (container.poll(), os.getsid(container.pid) == container.pid)
    container.stop()
    assert gone(*pids)


def test_started_by_hand_it_ends_nobody_else() -> None:
    """In somebody else's process group, where its input ends, it ends alone."""
    script = f"{sys.executable} -m contained alone < /dev/null; echo $?"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, start_new_session=True
    )

    assert (0, "1\n") == (done.returncode, done.stdout)


def test_its_environment_names_no_cloud_and_no_secret(tmp_path: Path) -> None:
    """Only what is known to be harmless is passed on, and nothing may reach out."""
    secrets = {
        "AZURE_CLIENT_SECRET": "s",
        "IDENTITY_HEADER": "s",
        "PREFECT_API_KEY": "s",
        "MLFLOW_TRACKING_URI": "https://elsewhere",
        "HF_TOKEN": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
        "HTTPS_PROXY": "http://user:password@proxy",
    }
    environ = container_environment({**secrets, "PATH": "/bin", "LC_ALL": "C"}, tmp_path)

    assert set() == set(secrets) & set(environ)
    assert ("/bin", "C", str(tmp_path)) == tuple(
        environ[name] for name in ("PATH", "LC_ALL", "TMPDIR")
    )
    assert ("1", "1") == (environ["HF_HUB_OFFLINE"], environ["TRANSFORMERS_OFFLINE"])
