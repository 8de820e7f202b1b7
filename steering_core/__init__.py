"""Sparse steering of language models through SAE features, measured.

Data flows one way through the subpackages::

    data -> models -> activations -> statistics -> training -> probes -> optimize -> methods
         -> generation -> metrics -> tables -> exports

``corrsteer`` answers the questions of a task with the same models, interventions and judges.
``config`` describes an experiment, ``runtime`` surrounds every stage, ``storage`` writes files,
``hub`` downloads them, ``early_checks`` finds mistakes before a job runs, and ``demo`` makes a
small world in which the truth is known. Nothing here knows Snakemake.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

#: Names that are here for users, by their module. It is imported on first use, as it takes seconds.
_LAZY = {
    "apply_all": "steering_core.exports.load",
    "load_intervention": "steering_core.exports.load",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
