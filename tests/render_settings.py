"""Which setting makes which stage run again: ``python tests/render_settings.py`` reads the rules.

It writes docs/settings.md. A setting is read by a rule whose parameters or inputs ask for it; what
lies downstream of that rule is made again with it.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from snakemake.iocontainers import Wildcards
from workflow_rules import CORRSTEER_JOB, JOB, ROOT, Rules, parse

from steering_core.config.methods import PROGRAM_FAMILIES

PAGE = ROOT / "docs" / "settings.md"
#: The columns: costly stages in the order in which data flows.
EXPERIMENT = "fetch cache_activations fit_probes solve generate divergence judge pareto".split()
CORRSTEER = ["corrsteer_" + name for name in "fetch select plan validate answer report".split()]
HEAD = """# Settings and stages

This page says which stages run again if a setting is changed. `python tests/render_settings.py`
writes it from the rules, and a test holds it to them.

**reads**: the stage reads the setting, so it runs again. **again**: it does not read it, but lies
downstream of a stage that does. An empty cell: it is left alone. The last column names stages
without a column of their own that read the setting, but for `provenance`, which holds every one.
The column `solve` is about the rows of the dataset. The prompts have stages of their own
(`prompts`, `cache_prompts`, `solve_prompts`, …), so settings of prompts and of texts leave all that
is fitted on rows alone. The table is of an experiment with `layer: auto`. `try_layer` and
`layer_effect` run with `layer: effect` only; what they read then also makes all stages from
`pick_layer` on run again. Rules that make the directions of concept files for guards, answers
elsewhere and exports are not listed.
Within `generate`, `divergence` and CorrSteer's `answer` only methods that steer otherwise than
before are made again ([reliability](reliability.md)).
"""


class _Recorded:
    """Settings that note which of them were asked for."""

    def __init__(self, settings: Any):
        self.settings, self.read = settings, set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.settings, name)

    def model_dump(self, **given: Any) -> dict[str, Any]:
        self.read |= given.get("include", set())  # all of them: the record of the configuration
        return self.settings.model_dump(**given)


def _jobs(rule: Any, programs: list[str]) -> Iterator[Wildcards]:
    """Wildcards of jobs of a rule: one for each family, and one for each method or program."""
    values = {name: [value] for name, value in {**vars(CORRSTEER_JOB), **vars(JOB)}.items()}
    values |= {"family": PROGRAM_FAMILIES, "method": [JOB.method, *programs], "layer": ["2"]}
    names = sorted(rule.wildcard_names)
    if not set(names) <= set(values):
        return  # of what no experiment here has
    for chosen in product(*(values[name] for name in names)):
        job = dict(zip(names, chosen, strict=True))
        limits = rule.wildcard_constraints
        if all(re.fullmatch(limits.get(name, ".*"), value) for name, value in job.items()):
            yield Wildcards(fromdict=job)


def reads_and_edges(rules: Rules, kind: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the settings that each rule reads, and the rules whose outputs it reads.

    Args:
        rules: the parsed workflow.
        kind: the wildcard of an experiment, ``experiment`` or ``run``.
    """
    reads: dict[str, set[str]] = {}
    edges: dict[str, set[str]] = {}
    find = rules.names["experiment"]
    own = find(JOB).settings
    programs = [*own.programs, *own.plans, *own.gated]
    for rule in rules.rules:
        if kind not in rule.wildcard_names or rule.script is None:
            continue
        reads[rule.name], edges[rule.name] = set(), set()
        for job in _jobs(rule, programs):
            recorded = _Recorded(find(job).settings)
            noting = replace(find(job), settings=recorded)
            rules.names["experiment"] = lambda job, noting=noting: noting
            try:
                for _, value in rule.params.items():
                    if callable(value) and not rule._is_deriving_function(value):
                        value(job)
                inputs = rule.expand_input(dict(job.items()))[0]
            finally:
                rules.names["experiment"] = find
            reads[rule.name] |= recorded.read
            for path in inputs:
                edges[rule.name] |= {one.name for one in rules.rules if one.is_producer(str(path))}
    return reads, edges


def downstream(rules: set[str], edges: dict[str, set[str]]) -> set[str]:
    """Return ``rules`` and all that reads what they make, directly or not."""
    found = set(rules)
    while more := {name for name, sources in edges.items() if sources & found} - found:
        found |= more
    return found


def table(rules: Rules, kind: str, columns: list[str], settings: list[str]) -> list[str]:
    """Return the lines of a table in Markdown."""
    reads, edges = reads_and_edges(rules, kind)
    head = [name.removeprefix("corrsteer_") for name in columns]
    lines = [f"| setting | {' | '.join(head)} | also read by |", f"|---{'|---' * (len(head) + 1)}|"]
    for setting in settings:
        readers = {name for name, own in reads.items() if setting in own}
        again = downstream(readers, edges)
        cells = [
            "reads" if name in readers else "again" if name in again else "" for name in columns
        ]
        others = sorted(readers - {*columns, "provenance", "corrsteer_provenance"})
        cells.append(", ".join(f"`{name}`" for name in others))
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return lines


def page() -> str:
    """Return the whole page."""
    rules = parse()
    parts = [HEAD, "## Experiments that deliver pareto.csv\n"]
    own = rules.names["experiment"](JOB).settings
    parts += table(rules, "experiment", EXPERIMENT, list(type(own).model_fields))
    parts.append("\n## CorrSteer\n")
    own = rules.names["experiment"](CORRSTEER_JOB).settings
    parts += table(rules, "run", CORRSTEER, list(type(own).model_fields))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(PAGE).write_text(page(), encoding="utf-8")
