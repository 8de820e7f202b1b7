"""Ranges in pyproject; exact versions in the constraints, and the same in the environments."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import steering_core

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = sorted((ROOT / "envs").glob("*.yaml"))


def pins(requirements: list[str]) -> dict[str, str]:
    """Version by normalised name; every requirement must be an exact pin."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!]+)", requirement)
        assert match, f"{requirement!r} is no exact pin"
        name = normalised(match[1])
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ranges(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Range by normalised name; every requirement must have both ends and no exact pin."""
    found = {}
    for requirement in map(Requirement, requirements):
        operators = sorted(part.operator for part in requirement.specifier)
        assert operators == ["<", ">="], f"{requirement} must have a lower and an upper end"
        name = normalised(requirement.name)
        assert name not in found, f"{name} is required twice"
        found[name] = requirement.specifier
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
def test_conda_environments_hold_exactly_the_packages_of_the_project(path: Path):
    assert pins(pip_list(path)).keys() == ranges(PROJECT["dependencies"]).keys()


@pytest.mark.parametrize("path", CONDA, ids=lambda path: path.name)
def test_conda_environments_have_a_python_the_project_accepts(path: Path):
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    (python,) = [d for d in dependencies if isinstance(d, str) and d.startswith("python")]
    version = tuple(map(int, re.fullmatch(r"python=+([0-9.]+)", python)[1].split(".")))
    least = re.fullmatch(r">=([0-9.]+)", PROJECT["requires-python"])[1]
    assert version >= tuple(map(int, least.split(".")))


def test_constraints_pin_every_requirement_within_its_range():
    fixed = constraints()
    groups = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for group, requirements in groups.items():
        for name, allowed in ranges(requirements).items():
            assert name in fixed, f"{name} of {group} is not in envs/constraints.txt"
            assert allowed.contains(fixed[name]), f"{name} of {group}: {fixed[name]}, {allowed}"


def test_exact_versions_stand_in_the_constraints_alone():
    """What installs packages names the constraints, and no version of its own."""
    for name in ("Makefile", "Containerfile", ".ci/run"):
        lines = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
        for command in (
            part for line in lines for part in line.split("&&") if "pip install" in part
        ):
            assert "--constraint envs/constraints.txt" in command, f"{name}: {command.strip()}"
            assert "==" not in command, f"{name}: {command.strip()}"


def test_one_version_of_the_project():
    version = PROJECT["version"]
    assert steering_core.__version__ == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([0-9.]+)", changelog, re.MULTILINE)[1] == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version and citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_container_copies_what_the_workflow_reads():
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.*)$", text, re.M) for name in line.split()[:-1]}
    assert {"Snakefile", "config.yaml", "rules", "workflow_scripts", "resources"} <= copied
    assert {"steering_core", "envs", "profiles", "pyproject.toml"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    minor = re.search(r"python:([0-9.]+)", text)[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(minor)


def test_the_catalogue_of_workflows_is_told_how_to_run_this_one():
    file = ROOT / ".snakemake-workflow-catalog.yml"
    usage = yaml.safe_load(file.read_text(encoding="utf-8"))["usage"]
    assert usage["software-stack-deployment"]["conda"] is True and usage["report"] is True
    target = re.search(r"results/\S+/(\S+?),? ", usage["mandatory-flags"]["desc"])[1]
    assert f'"{target.rstrip(".")}"' in (ROOT / "rules" / "common.smk").read_text(encoding="utf-8")


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
    owners, pinned = packages_distributions(), ranges(requirements)
    return {
        name
        for name in names & owners.keys()
        if not any(normalised(owner) in pinned for owner in owners[name])
    }


def test_every_imported_package_is_pinned_directly():
    names = imported("steering_core", "workflow_scripts")
    assert {"httpx", "psutil", "tokenizers"} <= names
    assert lacking(names, PROJECT["dependencies"]) == set()
    extras = [pin for extra in PROJECT["optional-dependencies"].values() for pin in extra]
    everything = [*PROJECT["dependencies"], *extras]
    assert lacking(imported("tests", "benchmarks"), everything) == set()
