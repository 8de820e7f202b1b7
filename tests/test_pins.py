"""One set of pins: pyproject's, the conda environments' and the constraints' are the same."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = sorted((ROOT / "envs").glob("*.yaml"))


def pins(requirements: list[str]) -> dict[str, str]:
    """Version by normalised name; every requirement must be an exact pin."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!]+)", requirement)
        assert match, f"{requirement!r} is no exact pin"
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def constraints() -> dict[str, str]:
    lines = (ROOT / "envs" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return pins([line.strip() for line in lines if line.strip() and not line.startswith("#")])


def pip_list(path: Path) -> list[str]:
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    (listed,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return listed


def test_there_are_conda_environments():
    assert ROOT / "envs" / "steering.yaml" in CONDA


@pytest.mark.parametrize("path", CONDA, ids=lambda path: path.name)
def test_conda_environments_hold_exactly_the_pins_of_the_project(path: Path):
    assert pins(pip_list(path)) == pins(PROJECT["dependencies"])


@pytest.mark.parametrize("path", CONDA, ids=lambda path: path.name)
def test_conda_environments_have_a_python_the_project_accepts(path: Path):
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    (python,) = [d for d in dependencies if isinstance(d, str) and d.startswith("python")]
    version = tuple(map(int, re.fullmatch(r"python=+([0-9.]+)", python)[1].split(".")))
    least = re.fullmatch(r">=([0-9.]+)", PROJECT["requires-python"])[1]
    assert version >= tuple(map(int, least.split(".")))


def test_constraints_agree_with_the_project_in_every_extra():
    fixed = constraints()
    groups = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for group, requirements in groups.items():
        wanted = pins(requirements)
        assert wanted.items() <= fixed.items(), group


@pytest.mark.parametrize("path", CONDA, ids=lambda path: path.name)
def test_constraints_agree_with_the_conda_environments(path: Path):
    assert pins(pip_list(path)).items() <= constraints().items()


def test_every_rule_that_runs_a_script_names_an_environment():
    """``--sdm conda`` gives a rule nothing else."""
    lacking, known = [], {path.name for path in CONDA}
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for rule in re.split(
            r"^(?:rule|checkpoint) ", file.read_text(encoding="utf-8"), flags=re.M
        ):
            name = rule.split(":", 1)[0]
            found = re.search(r'^    conda:\s*\n\s*"\.\./envs/([^"]+)"', rule, flags=re.M)
            if re.search(r"^    script:", rule, flags=re.M) and (
                found is None or found[1] not in known
            ):
                lacking.append(name)
    assert lacking == []


def imported(*folders: str) -> set[str]:
    """Top-level names that the code of some folders imports."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    nodes = [n for file in files for n in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    lines = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    lines += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    profiles = (ROOT / "profiles").rglob("*.yaml")
    lines += [m for f in profiles for m in re.findall(r"^ +- import (\w+)$", f.read_text(), re.M)]
    return {line.partition(".")[0] for line in lines} - {"steering_core"}


def lacking(names: set[str], requirements: list[str]) -> set[str]:
    """Those of ``names`` that come from a package which is not among the requirements."""
    owners, pinned = packages_distributions(), pins(requirements)
    return {
        name
        for name in names & owners.keys()
        if not any(re.sub(r"[-_.]+", "-", owner).lower() in pinned for owner in owners[name])
    }


def test_every_imported_package_is_pinned_directly():
    names = imported("steering_core", "workflow_scripts")
    assert {"httpx", "psutil", "tokenizers"} <= names
    assert lacking(names, PROJECT["dependencies"]) == set()
    extras = [pin for extra in PROJECT["optional-dependencies"].values() for pin in extra]
    everything = [*PROJECT["dependencies"], *extras]
    assert lacking(imported("tests", "benchmarks"), everything) == set()
