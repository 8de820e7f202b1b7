"""What a run of Snakemake was asked for, and whether its options are of use there."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from steering_core.config.corrsteer_resolve import CorrSteerExperiment
from steering_core.corrsteer.read_items import source_of
from steering_core.corrsteer.tasks import OPTIONS, Task, find_task
from steering_core.errors import ConfigError


def asked_runs(
    targets: Iterable[str],
    experiments: Mapping[str, CorrSteerExperiment],
    table_runs: Collection[str],
) -> set[str]:
    """Return the experiments that Snakemake was asked for, with those whose features they take.

    Args:
        targets: as on the command line.
        experiments: all of CorrSteer's.
        table_runs: those that the published tables are measured from.
    """
    found: set[str] = set()
    for target in targets:
        path = re.search(r"(?:^|/)results/([^/]+)/", target)
        if target == "corrsteer":
            found |= set(experiments)
        elif target.startswith("corrsteer") or (path and path[1] == "tables"):
            found |= set(table_runs)
        elif path and path[1] in experiments:
            found.add(path[1])
    arms = [arm for run in found for arm in experiments[run].settings.arms.values()]
    return found | {arm.features_from.experiment for arm in arms if arm.features_from is not None}


def check_options(
    given_now: Mapping[str, object],
    experiments: Mapping[str, CorrSteerExperiment],
    asked: Collection[str],
) -> None:
    """Refuse an option that no experiment of this run can follow.

    Args:
        given_now: what was given for this run alone, with ``--config``.
        experiments: all of CorrSteer's.
        asked: names of those of this run.

    Raises:
        ConfigError: naming the option.
    """
    tasks = {run: _task_of(experiments[run]) for run in asked}
    names = ", ".join(sorted({task.name for task in tasks.values()}))
    for option, (applies, why) in OPTIONS.items():
        if given_now.get(option) and tasks and not any(map(applies, tasks.values())):
            raise ConfigError(
                f"{option} would change nothing that is asked for here: {why} in {names}."
            )
    arms = [arm for run in asked for arm in experiments[run].settings.arms.values()]
    if given_now.get("published_mask") and asked and all(arm.mask != "all" for arm in arms):
        raise ConfigError(
            "published_mask would change nothing that is asked for here: no arm has mask: all."
        )


def _task_of(experiment: CorrSteerExperiment) -> Task:
    """Return the task with the rows that the configuration gives it."""
    task = find_task(experiment.task.task)
    return replace(task, source=source_of(experiment.task, task))
