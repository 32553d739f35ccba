"""The work pools that the recipes describe are ones that Prefect takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.utilities.schema_tools.validation import validate
from ruamel.yaml import YAML

from deployments.definitions import deployments
from deployments.work_pool import ensure_work_pool
from lifecycle.errors import ConfigurationError

POOLS = sorted(Path("deployments/pools").glob("*.yaml"))


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.stem)
def test_a_pool_is_made_and_brought_up_to_date(
    prefect_server: str, tmp_path: Path, path: Path
) -> None:
    """Its values are the defaults of Prefect's own template, and fit it with prefect.yaml's."""
    name = f"pool-{path.stem}"
    ours = tmp_path / "pool.yaml"
    ours.write_text(path.read_text().replace("name: finetune\n", f"name: {name}\n"))

    assert name == ensure_work_pool(ours)
    assert name == ensure_work_pool(ours)

    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(name)
    variables = pool.base_job_template["variables"]
    defaults = {
        key: one["default"]
        for key, one in variables["properties"].items()
        if one.get("default") is not None
    }
    for deployment in deployments():
        given: dict[str, Any] = deployment["work_pool"]["job_variables"]
        assert [] == validate(defaults | given, variables, preprocess=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: x, type: kubernetes, job_variables: {imagee: y}}", "imagee: there is no such"),
        (
            "{name: x, type: kubernetes, job_variables: {finished_job_ttl: soon}}",
            "job_variables.finished_job_ttl: 'soon' is not of type 'integer'",
        ),
        (
            "{name: x, type: azure-container-instance, job_variables: {image: y}}",
            "'resource_group_name' is a required property",
        ),
        ("{name: x, type: kubernets, job_variables: {}}", "'kubernets' is no type of work pool"),
        ("{name: x}", "name, type and job_variables are asked for"),
        ("a: b: c", "it cannot be read"),
    ],
    ids=["name", "type-of-value", "required", "type", "keys", "no-yaml"],
)
def test_a_wrong_description_is_refused(
    prefect_server: str, tmp_path: Path, text: str, said: str
) -> None:
    """In one sentence that names the place; no pool is made."""
    path = tmp_path / "pool.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        ensure_work_pool(path)


def test_the_chart_is_installed_where_the_jobs_are() -> None:
    """Its role reaches no other namespace; it watches the pool, on a server of one's own."""
    page = Path("docs/running/kubernetes.md").read_text()
    pool = YAML(typ="safe").load(Path("deployments/pools/kubernetes.yaml"))

    assert f"--namespace {pool['job_variables']['namespace']} " in page
    assert f"--set worker.config.workPool={pool['name']}\n" in page
    assert "--set worker.apiConfig=selfHostedServer " in page


def test_the_image_has_all_that_the_flows_import() -> None:
    """Each package of pyproject.toml, and what prefect.yaml and the profiles name, is copied."""
    said = Path("deployments/Dockerfile").read_text()
    copied = {line.split()[1] for line in said.splitlines() if line.startswith("COPY ")}

    wanted = {"cli", "deployments", "flows", "lifecycle", "tasks", "profiles", "prefect.yaml"}
    assert set() == wanted - copied
    assert all(Path(one).exists() for one in copied)


def test_the_image_passes_the_linter() -> None:
    """Nobody here can build it: hadolint reads it instead."""
    linter = Path(sys.prefix) / "bin" / "hadolint"
    said = subprocess.run(
        [linter, "deployments/Dockerfile"], capture_output=True, text=True, check=False
    )

    assert (0, "") == (said.returncode, said.stdout)


def test_the_unit_runs_a_worker_of_the_pool() -> None:
    """Of prefect.yaml, from the folder that the recipe clones to; a stop reaches its runs, too."""
    unit = Path("deployments/systemd/finetune-worker.service").read_text()
    [home] = re.findall(r"git clone … (\S+)", Path("docs/running/systemd.md").read_text())

    [names] = {deployment["work_pool"]["name"] for deployment in deployments()}
    assert f"ExecStart={home}/.venv/bin/prefect worker start --pool {names} " in unit
    assert f"Environment=FINETUNE_HOME={home}\n" in unit
    assert f"WorkingDirectory={home}\n" in unit
    assert "KillMode=control-group\n" in unit


def test_the_unit_keeps_what_a_run_reads_where_the_run_may_read(tmp_path: Path) -> None:
    """The hub's client looks into the folders of the unit, and not into a home out of sight."""
    unit = Path("deployments/systemd/finetune-worker.service").read_text().splitlines()
    pairs = [line.removeprefix("Environment=") for line in unit if line.startswith("Environment=")]
    given = dict(pair.split("=", 1) for pair in pairs)
    asked = "from huggingface_hub import constants as at; print(at.HF_TOKEN_PATH, at.HF_HUB_CACHE)"
    looked_in = subprocess.run(
        [sys.executable, "-c", asked],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **given},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "ProtectHome=true" in unit
    assert {"CacheDirectory=finetune", "StateDirectory=finetune"} <= set(unit)
    assert [] == [path for path in looked_in if not path.startswith("/var/cache/finetune/")]
    assert given["PREFECT_HOME"].startswith("/var/lib/finetune/")
