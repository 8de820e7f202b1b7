"""Two families of experiments share the top level of the configuration; most keys are of one.

A key that no experiment of a run reads would do nothing, and look as if it had done something.
"""

import re
from collections.abc import Collection, Iterable

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.config.settings import Settings
from steering_core.config.validation import hint
from steering_core.errors import ConfigError

#: Settings of each family, by what its experiments deliver.
FAMILIES = {"pareto.csv": Settings, "corrsteer.csv": CorrSteerSettings}


def asked_families(targets: Iterable[str], corrsteer_runs: Collection[str]) -> set[str]:
    """Return the families of the files and rules that Snakemake was asked for.

    Args:
        targets: as on the command line; none are the default target.
        corrsteer_runs: names of CorrSteer's experiments.

    """
    return {_family(target, corrsteer_runs) for target in targets} or {"pareto.csv"}


def _family(target: str, corrsteer_runs: Collection[str]) -> str:
    found = re.search(r"(?:^|/)results/([^/]+)/", target)
    if found is None:
        return "corrsteer.csv" if target.startswith("corrsteer") else "pareto.csv"
    return "corrsteer.csv" if found[1] in {*corrsteer_runs, "tables"} else "pareto.csv"


def check_top_level(
    keys: Iterable[str], given_now: Collection[str], asked: Collection[str]
) -> list[str]:
    """Return a warning for each family some of whose keys not all of the asked families read.

    Args:
        keys: of the configuration's top level.
        given_now: those of them that were given for this run alone, with ``--config``.
        asked: the families of this run.

    Raises:
        ConfigError: if no experiment of this run reads a key that was given for it.

    """
    unread: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        owners = [name for name, schema in FAMILIES.items() if key in schema.model_fields]
        without = [name for name in asked if name not in owners]
        if not owners or not without:  # a section, or read by all
            continue
        if set(without) == set(asked) and key in given_now:
            near = hint(key, FAMILIES[without[0]].model_fields)
            raise ConfigError(
                f"{key} is a setting of experiments that deliver {owners[0]}: it would change "
                f"nothing that is asked for here{near}."
            )
        unread.setdefault((owners[0], without[0]), []).append(key)
    return [
        f"{', '.join(found)}: of experiments that deliver {owner}, changes nothing of any {other}."
        for (owner, other), found in unread.items()
    ]
