"""The house is as its plan says: one step, one name on every floor; every test says its promise."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

STEPS = {
    "auth",
    "component",
    "compute",
    "dataset",
    "endpoint",
    "evaluation",
    "job",
    "metrics",
    "model",
    "preflight",
    "registration",
    "sweep",
}
MAKE_TARGET = re.compile(r"`make ([a-z-]+)")


def test_each_step_has_one_name_on_every_floor() -> None:
    """A reader who knows a step's name finds its function, task, test and page."""
    for floor, suffix in (("lifecycle", ".py"), ("tasks", ".py"), ("docs/steps", ".md")):
        assert set() == STEPS - {path.stem for path in Path(floor).glob(f"*{suffix}")}, floor
    tests = {path.stem.removeprefix("test_") for path in Path("tests/lifecycle").glob("*.py")}
    assert set() == STEPS - tests
    assert STEPS == {path.stem for path in Path("docs/steps").glob("*.md")}


@pytest.mark.parametrize("path", sorted(Path("tests").rglob("test_*.py")), ids=str)
def test_every_test_says_which_promise_it_keeps(path: Path) -> None:
    """A docstring on each test, and on each test module."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    silent = [
        node.name
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert ast.get_docstring(module)
    assert [] == silent


def test_the_emulators_package_holds_every_file_of_its_folder() -> None:
    """Here it is installed editable, where a file that the wheel lacks is not missed."""
    settings = tomllib.loads(Path("emulator/pyproject.toml").read_text(encoding="utf-8"))
    package = Path("emulator/src/azureml_emulator")
    [patterns] = settings["tool"]["setuptools"]["package-data"].values()
    packed = {path for pattern in patterns for path in package.glob(pattern)}

    there = {path for path in package.rglob("*") if path.is_file()}
    code = {path for path in there if path.suffix in {".py", ".pyc"}}
    assert set() == there - code - packed


def test_every_make_target_that_the_docs_name_is_there() -> None:
    """A command that a page shows can be typed."""
    makefile = Path("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    pages = [Path("README.md"), Path("CHANGELOG.md"), *Path("docs").rglob("*.md")]
    named = {name for page in pages for name in MAKE_TARGET.findall(page.read_text("utf-8"))}

    assert set() == named - targets


def test_every_relative_link_in_the_docs_leads_somewhere() -> None:
    """No page points at a file that is not there."""
    pages = [
        Path("README.md"),
        Path("CHANGELOG.md"),
        Path("emulator/README.md"),
        *Path("docs").rglob("*.md"),
    ]
    broken = [
        f"{page}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]

    assert [] == broken


def test_every_picture_of_the_docs_is_taken_by_the_browser_tests() -> None:
    """So that none shows what is no longer there; `make test-all` leaves them in runs/browser."""
    tests = Path("tests/browser/test_serve.py").read_text(encoding="utf-8")
    kept = set(re.findall(r'keep\("([a-z]+)"', tests))

    assert set() == {path.stem for path in Path("docs/pictures").glob("*.png")} - kept


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    """What is committed runs anywhere: no absolute home, no registry's host."""
    homes = r"(^|[^A-Za-z0-9_.])/(root|home/[a-z]+|tmp/[a-z]+)/"
    words = rf"{homes}|pypi\.org|pythonhosted|npmjs\.(org|com)"
    found = subprocess.run(
        ["git", "grep", "-nIE", words, "--", ".", ":!tests/test_house.py"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "" == found.stdout
