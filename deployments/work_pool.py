"""``python -m deployments.work_pool FILE``: make the work pool that a file describes.

Such files are in deployments/pools/: a type of work pool and values of its job variables. They
become the defaults of the pool's base job template, so that prefect.yaml is the same wherever the
flows run. The values are checked against Prefect's own schema of that type first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.schema_tools.validation import validate
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lifecycle.errors import ConfigurationError

from .command import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Make the pool, or bring it up to date; 0; 1 without a Prefect server; 2 if refused."""
    parser = argparse.ArgumentParser(prog="python -m deployments.work_pool", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)

    def make() -> None:
        name = ensure_work_pool(chosen.file)
        print(f"Work pool {name}; a worker of it: prefect worker start --pool {name}")

    return exit_code("work_pool", make)


def ensure_work_pool(path: Path) -> str:
    """Make the work pool that *path* describes, or bring it up to date, and return its name.

    Raises:
        ConfigurationError: The file is no description of a work pool, or a value of it is wrong.
    """
    wanted = _read(path)
    template = base_job_template(wanted["type"], wanted["job_variables"], str(path))
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(
                WorkPoolCreate(name=wanted["name"], type=wanted["type"], base_job_template=template)
            )
        except ObjectAlreadyExists:
            # Also where Prefect's client asked twice, because the server was slow to answer.
            pool = client.read_work_pool(wanted["name"])
            if pool.type != wanted["type"]:
                raise ConfigurationError(
                    f"the work pool {pool.name} is there, and is of type {pool.type}.",
                    where=f"{path}: type",
                    remedy="Delete it first, or name another.",
                ) from None
            client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
    return str(wanted["name"])


def base_job_template(kind: str, values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return Prefect's base job template of a type, with *values* as its defaults.

    Args:
        kind: Type of the work pool: process, kubernetes, azure-container-instance.
        values: Of job variables.
        source: What to call the place of a wrong value.

    Raises:
        ConfigurationError: There is no such type or variable, or a value is none of its schema.
    """
    template = asyncio.run(get_default_base_job_template_for_infrastructure_type(kind))
    if template is None:
        raise ConfigurationError(
            f"{kind!r} is no type of work pool that Prefect knows.", where=f"{source}: type"
        )
    variables = template["variables"]
    known = variables["properties"]
    for name in values:
        if name not in known:
            raise ConfigurationError(
                f"there is no such job variable; there are {', '.join(known)}.",
                where=f"{source}: job_variables.{name}",
            )
    for error in validate(values, variables, preprocess=False):
        place = ".".join(["job_variables", *map(str, error.absolute_path)])
        raise ConfigurationError(f"{error.message}.", where=f"{source}: {place}")
    for name, value in values.items():
        known[name]["default"] = value
    return template


def _read(path: Path) -> dict[str, Any]:
    try:
        wanted = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"it cannot be read: {' '.join(str(error).split())}.", where=str(path)
        ) from error
    if not isinstance(wanted, dict) or set(wanted) != {"name", "type", "job_variables"}:
        raise ConfigurationError("name, type and job_variables are asked for.", where=str(path))
    return wanted


if __name__ == "__main__":
    sys.exit(main())
