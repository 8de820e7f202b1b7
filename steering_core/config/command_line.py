"""What ``--config`` cannot say by itself: Snakemake reads a nested ``null`` as that word."""

from collections.abc import Mapping
from typing import Any

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
