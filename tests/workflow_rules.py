"""The rules of the Snakefile and the parameters of their jobs, without a run."""

import functools
import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from steering_core.config.methods import PROGRAM_FAMILIES

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
#: Wildcards of a job of an experiment that delivers pareto.csv, and of one of CorrSteer.
JOB = SimpleNamespace(experiment="demo", method="qp_optimal", shard="0")
CORRSTEER_JOB = SimpleNamespace(
    **{"run": "demo_praise_all", "seed": "0", "arm": "corrsteer_p", "method": "qp_optimal"},
    **{"shard": "0", "table": "accuracy", "cell": "corrsteer_a-mmlu"},
)


def wildcards_of(rule: Any, **others: str) -> SimpleNamespace:
    """Wildcards of a job of ``rule``. A rule has its own wildcards and no others."""
    values = {**vars(JOB), **vars(CORRSTEER_JOB), **others}
    own = {name: value for name, value in values.items() if name in rule.wildcard_names}
    return SimpleNamespace(**own)


def has_job(rule: Any) -> bool:
    """Whether ``rule`` makes something for the wildcards above.

    A rule of plans and methods that one half takes from the other has no job where none is taken.
    """
    values = {**vars(JOB), **vars(CORRSTEER_JOB), "family": PROGRAM_FAMILIES[0]}
    own = rule.wildcard_constraints
    return all(
        name in values and re.fullmatch(own.get(name, ".*"), values[name])
        for name in rule.wildcard_names
    )


@dataclass(frozen=True)
class Rules:
    """The parsed workflow: its rules and the names in their files."""

    rules: list[Any]
    names: dict[str, Any]

    def parameters(self) -> dict[str, str]:
        """Parameters of a job of each rule, as JSON: other ones make its files stale.

        Of a rule that has a job for each family of methods, all of them: ``solve-qp``.
        """
        found = {}
        for rule in self.rules:
            if not has_job(rule):
                continue
            by_family = "family" in rule.wildcard_names
            for family in PROGRAM_FAMILIES if by_family else ("",):
                job = wildcards_of(rule, family=family)
                given = {
                    key: value(job) if callable(value) else value
                    for key, value in rule.params.items()
                    if not rule._is_deriving_function(value)  # Snakemake does not compare it
                }
                name = f"{rule.name}-{family}" if by_family else rule.name
                found[name] = json.dumps(given, default=str)
        return found

    @functools.cached_property
    def as_parsed(self) -> dict[str, str]:
        """Parameters under the configuration as it was parsed."""
        return self.parameters()

    def stale(self, **settings: Any) -> set[str]:
        """Rules of pareto.csv that a setting at top level makes stale."""
        before = self.as_parsed
        with _items(self.names["config"], settings):
            return self._changed(before)

    def stale_of_corrsteer(self, **settings: Any) -> set[str]:
        """Rules of CorrSteer that a setting of all its experiments makes stale."""
        before = self.as_parsed
        with self.corrsteer_settings(**settings):
            return self._changed(before)

    @contextmanager
    def corrsteer_settings(self, **settings: Any) -> Iterator[None]:
        """Give all experiments of CorrSteer some settings for the block."""
        runs = self.names["CORRSTEER"]
        changed = {
            name: replace(run, settings=run.settings.model_copy(update=settings))
            for name, run in runs.items()
        }
        with _items(runs, changed):
            yield

    def _changed(self, before: dict[str, str]) -> set[str]:
        return {rule for rule, now in self.parameters().items() if now != before[rule]}


@contextmanager
def _items(mapping: dict, others: dict) -> Iterator[None]:
    kept = dict(mapping)
    mapping.update(others)
    try:
        yield
    finally:
        mapping.clear()
        mapping.update(kept)


@functools.cache
def parse(*configfiles: str) -> Rules:
    """Parse the Snakefile as Snakemake does; ``configfiles`` are relative to its directory.

    Once a process: who changes a part of what is returned sets it back.
    """
    handlers = logging.getLogger().handlers[:]
    with (
        tempfile.TemporaryDirectory() as directory,
        SnakemakeApi(OutputSettings(quiet={"all"})) as api,
    ):
        (Path(directory) / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        files = [Path(directory) / name for name in configfiles]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
        parsed = api.workflow(
            resource_settings=ResourceSettings(),
            config_settings=ConfigSettings(configfiles=files),
            snakefile=ROOT / "Snakefile",
            workdir=Path(directory),
        )._workflow
    logging.getLogger().handlers[:] = handlers
    return Rules(list(parsed.rules), parsed.globals)
