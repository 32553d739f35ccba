"""A schedule fires: with what a plain install takes beside Prefect 3.8.8, it never does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

SERVED = """
from prefect import flow

@flow(name="ticking")
def ticking() -> None:
    pass

if __name__ == "__main__":
    ticking.serve(name="every-five-seconds", interval=5)
"""


def test_a_scheduled_run_starts_by_itself(prefect_server: str, tmp_path: Path) -> None:
    """The pinned versions serve a flow, schedule it and run it, with nobody asking."""
    script = tmp_path / "ticking.py"
    script.write_text(SERVED)
    runner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL)
    try:
        run = _completed_run(prefect_server)
    finally:
        runner.terminate()
        runner.wait(timeout=120)

    assert (True, "COMPLETED") == (run["auto_scheduled"], run["state_type"])


def _completed_run(api: str) -> dict[str, Any]:
    wanted = {
        "flows": {"name": {"any_": ["ticking"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    request = urllib.request.Request(
        f"{api}/flow_runs/filter",
        data=json.dumps(wanted).encode(),
        headers={"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 300
    while time.monotonic() < end:
        with direct.open(request, timeout=10) as answer:
            runs: list[dict[str, Any]] = json.load(answer)
        if runs:
            return runs[0]
        time.sleep(0.5)
    raise AssertionError("no scheduled run completed within five minutes")
