"""What Snakemake takes otherwise than it was meant: a nested ``null``, a target among files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from steering_core.errors import ConfigError

_NULLS = ("null", "Null", "NULL", "~")


def with_nulls(config: Any, given: Any) -> Any:
    """Return ``config`` with None wherever ``given``, a part of it, has YAML's word for null.

    Args:
        config: the merged configuration.
        given: what of it was given for this run alone, as Snakemake parsed it.

    """
    if isinstance(given, str):
        return None if given in _NULLS else config
    if isinstance(given, Mapping) and isinstance(config, Mapping):
        changed = {key: with_nulls(config[key], value) for key, value in given.items()}
        return {**config, **changed}
    if isinstance(given, list) and isinstance(config, list) and len(given) == len(config):
        return [with_nulls(*pair) for pair in zip(config, given, strict=True)]
    return config


def refuse_targets(files: Iterable[str | Path], directory: str | Path) -> None:
    """Refuse results that were given as files of configuration.

    Snakemake takes everything after ``--configfile`` as such a file, targets as well. It fails by
    itself, before the Snakefile is read, if a target is missing or is not JSON or YAML. The others
    would be merged into the configuration.

    Args:
        files: of configuration, as Snakemake took them.
        directory: in which the workflow runs.

    Raises:
        ConfigError: naming the target, with the right order.

    """
    files = [Path(directory, file).resolve() for file in files]
    results = Path(directory, "results").resolve()
    targets = [file for file in files if file.is_relative_to(results)]
    if targets:
        names = " ".join(file.relative_to(results.parent).as_posix() for file in targets)
        others = " ".join(file.name for file in files if file not in targets) or "FILE"
        raise ConfigError(
            f"{names} was read as a file of configuration, like everything after --configfile. "
            f"Name targets first: snakemake --cores N {names} --configfile {others}"
        )
