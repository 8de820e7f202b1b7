"""Versions of the libraries that numbers of a model depend on."""

import importlib.metadata
from collections.abc import Mapping

LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "datasets", "pyarrow")


def running_versions() -> dict[str, str]:
    """Return the installed versions, without the build (``2.13.0`` of ``2.13.0+cu126``).

    Nodes with and without a GPU have builds of their own.
    """
    return {name: importlib.metadata.version(name).split("+")[0] for name in LIBRARIES}


def changed_versions(since: Mapping[str, str]) -> str:
    """Return which libraries differ from those of ``since``, as a list in words; empty if none."""
    now = running_versions()
    return ", ".join(
        f"{name} {since[name]} (now {now[name]})"
        for name in sorted(now)
        if name in since and since[name].split("+")[0] != now[name]
    )
