"""``prefect deploy --all`` takes what prefect.yaml lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_every_deployment_is_accepted(prefect_server: str) -> None:
    """All flows are found by their entrypoints, and the server takes their schemas."""
    environ = {**os.environ, "FINETUNE_HOME": str(Path.cwd())}

    pool = _prefect(environ, "work-pool", "create", "finetune", "--type", "process")
    deployed = _prefect(environ, "--no-prompt", "deploy", "--all")

    assert (0, 0) == (pool.returncode, deployed.returncode), deployed.stderr
    assert 3 == deployed.stdout.count("successfully created")


def _prefect(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prefect", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
