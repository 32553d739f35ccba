"""``make bench``: the tutorial's script beside the flow, on emulators started alike.

Each run has an emulator of its own, started before the clock is: a figure is the wall time of one
process from its start to its exit, with the interpreter's start and all imports, and the requests
that reached the emulator meanwhile. Both train the same model with the same parameters on the same
size, under the catalogue of 2024, on the same rows, and ask the endpoint one question. Unlike the
tutorial's own helper, the stand-in that makes the script's data imports no ``datasets``, which
saves the script about two seconds. The flow also reads the metrics and follows the logs of the
job's steps, which the script does not.

The flow runs twice: with a Prefect server that it starts itself, whose database is there already,
and with one that is running. The difference is the server's start. The runs are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "tests" / "tutorial"
REPEATS = {"instant": 3, "realistic": 1}

SCRIPT = "script"
FLOW = "flow"
FLOW_SERVED = "flow, served"
CAPTION = (
    "script: the tutorial's; flow: starts a Prefect server of its own; flow, served: has one "
    "running. In parentheses: ratio to the script."
)
PARTS = {
    "python": "pass",
    "imports of the script": "import azure.ai.ml, azure.identity, pandas",
    "imports of the flow": "import flows.finetune, azure.ai.ml, datasets, mlflow, pandas",
}
PROFILE = """\
model: {name: Phi-3-mini-4k-instruct, allow_retired: true}
compute: {name: gpu-cluster-big, size: Standard_ND40rs_v2, max_instances: 2}
dataset: {path: ultrachat_200k, percentage: 5, short_name: ultrachat, model_suffix: ultrachat-200k}
training: {experiment_name: chat_completion_Phi-3-mini-4k-instruct}
endpoint: {instance_type: Standard_NC4as_T4_v3}
evaluation: {conversations: 1}
"""


class Run(NamedTuple):
    """One run."""

    latency: str
    what: str
    seconds: float
    requests: int


def main(arguments: list[str] | None = None) -> int:
    """Run everything, print the table, and write the JSON that is asked for."""
    chosen = _parser().parse_args(arguments)
    latencies = list(REPEATS) if chosen.latency == "both" else [chosen.latency]
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as folder:
        runs, parts = measure(Path(folder), latencies, chosen.repeat)
    console = Console()
    console.print(table(runs))
    console.print(_parts_table(parts))
    if chosen.json is not None:
        document = {
            "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("azure-ai-ml", "prefect")},
            },
            "runs": [run._asdict() for run in runs],
            "parts": parts,
        }
        chosen.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(
    folder: Path, latencies: list[str], repeat: int | None
) -> tuple[list[Run], dict[str, float]]:
    """Return every run, interleaved, and what its parts take.

    Args:
        folder: Where everything is kept meanwhile.
        latencies: Of the emulator.
        repeat: How often each; as :data:`REPEATS` where None.
    """
    own, served = folder / "prefect-own", folder / "prefect-served"
    _make_data(folder / "ultrachat_200k")
    _upgrade_database(own)
    runs: list[Run] = []
    with _prefect_server(served) as url:
        homes = {SCRIPT: {}, FLOW: {"PREFECT_HOME": str(own)}}
        homes[FLOW_SERVED] = {"PREFECT_HOME": str(served), "PREFECT_API_URL": url}
        for latency in latencies:
            for number in range(repeat or REPEATS[latency]):
                for what, environ in homes.items():
                    place = folder / f"{len(runs)}"
                    runs.append(_run(place, latency, what, environ))
                    print(
                        f"{latency}, {what}, run {number + 1}: {runs[-1].seconds:.1f} s, "
                        f"{runs[-1].requests} requests",
                        file=sys.stderr,
                        flush=True,
                    )
    return runs, {name: _seconds_of(code) for name, code in PARTS.items()}


def table(runs: list[Run]) -> Table:
    """Return the runs as one table, each figure with its ratio to the script's."""
    shown = Table(title="The whole life cycle", caption=CAPTION)
    for name in ("latency", "what", "n", "best s", "median s", "requests"):
        shown.add_column(name, justify="left" if name in ("latency", "what") else "right")
    for latency in dict.fromkeys(run.latency for run in runs):
        base = _figures(runs, latency, SCRIPT)
        for what in (SCRIPT, FLOW, FLOW_SERVED):
            cells = [
                f"{figure:.{digits}f} ({figure / one:.2f})"
                for figure, one, digits in zip(
                    _figures(runs, latency, what), base, (1, 1, 0), strict=True
                )
            ]
            count = sum(run[:2] == (latency, what) for run in runs)
            shown.add_row(latency, what, str(count), *cells)
    return shown


def _figures(runs: list[Run], latency: str, what: str) -> tuple[float, float, float]:
    """Return best and median seconds, and the median of the requests."""
    mine = [run for run in runs if run[:2] == (latency, what)]
    seconds = [run.seconds for run in mine]
    requests = statistics.median(run.requests for run in mine)
    return min(seconds), statistics.median(seconds), requests


def _parts_table(parts: dict[str, float]) -> Table:
    shown = Table("of which", "s", title="Alone, best of 3")
    for name, seconds in parts.items():
        shown.add_row(name, f"{seconds:.1f}")
    return shown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifecycle", description=__doc__)
    parser.add_argument("--latency", choices=[*REPEATS, "both"], default="both")
    parser.add_argument("--repeat", type=int, metavar="N", help=f"default: {REPEATS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run")
    return parser


def _run(folder: Path, latency: str, what: str, environ: dict[str, str]) -> Run:
    shutil.copytree(TUTORIAL, folder)
    if what == SCRIPT:
        command = ["python", "tutorial.py"]
    else:
        (folder / "bench.yaml").write_text(PROFILE, encoding="utf-8")
        (folder / "ultrachat_200k").symlink_to(folder.parent / "ultrachat_200k")
        environ = environ | {"FINETUNE_CACHE": str(folder / "cache")}
        command = ["python", "-m", "cli", "run", "--config", "bench.yaml"]
    with _emulator(folder / "state", latency) as url:
        began = time.monotonic()
        with (folder / "output").open("w") as output:
            done = subprocess.run(
                _as_client(folder / "state", environ, command),
                cwd=folder,
                env=_environ(),
                stdout=output,
                stderr=output,
                check=False,
            )
        seconds = time.monotonic() - began
        requests = _get(folder / "state", f"{url}/_emulator/requests")["requests"]
    if done.returncode:
        tail = (folder / "output").read_text(encoding="utf-8")[-4000:]
        raise SystemExit(f"{what} ended with {done.returncode}:\n{tail}")
    return Run(latency, what, round(seconds, 2), len(requests))


@contextmanager
def _emulator(state: Path, latency: str) -> Iterator[str]:
    """Serve an emulator and give its URL."""
    command = [sys.executable, "-m", "azureml_emulator", "serve", "--state", str(state)]
    choices = ["--jobs", "scripted", "--catalog", "2024", "--latency", latency]
    server = subprocess.Popen([*command, *choices], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        word, url, *_ = server.stdout.readline().split() or ["", ""]
        if word != "ready":
            raise SystemExit("the emulator did not start")
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _as_client(state: Path, environ: dict[str, str], command: list[str]) -> list[str]:
    """Return *command* as a client of the emulator in *state*, as a shell starts one."""
    settings = [f"{name}={value}" for name, value in environ.items()]
    script = '. "$0" && exec env "$@"'
    return ["/bin/sh", "-c", script, str(state / "client.env"), *settings, *command]


def _environ() -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


def _get(state: Path, url: str) -> Any:
    trust = ssl.create_default_context(cafile=str(state / "tls" / "ca-bundle.pem"))
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    with direct.open(url) as answer:
        return json.load(answer)


def _make_data(folder: Path) -> None:
    helper = TUTORIAL / "download-dataset.py"
    # As the script asks for it, but all of it: the flow takes its five percent itself.
    chosen = ["--dataset", "HuggingFaceH4/ultrachat_200k", "--download_dir", str(folder)]
    subprocess.run([sys.executable, str(helper), *chosen], check=True)


def _upgrade_database(home: Path) -> None:
    environ = _prefect_environ(home)
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _prefect_server(home: Path) -> Iterator[str]:
    """Run a Prefect server of our own and give its API's URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    home.mkdir()
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=_prefect_environ(home), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    try:
        _wait_for(f"{url}/health", server)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _prefect_environ(home: Path) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if "PREFECT_" not in name}
    return mine | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        if process.poll() is not None:
            raise SystemExit("the Prefect server did not start")
        try:
            with direct.open(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)


def _seconds_of(code: str) -> float:
    """Return the best of three starts of Python with *code*, in seconds."""
    environ = {name: value for name, value in _environ().items() if "PREFECT_" not in name}
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True)
        seconds.append(time.monotonic() - began)
    return round(min(seconds), 2)


if __name__ == "__main__":
    sys.exit(main())
