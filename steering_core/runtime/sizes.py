"""What a job needs of a machine, by the size of its model, its SAEs and its judges.

The rules ask for so much memory and so many cores, once the fetch stage has counted parameters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Memory of a job before it loads anything, in MB: Python with its libraries, and room for texts.
BASE = 3000
#: A smaller model keeps one core busy: the rest of a job is the start of Python. In MB.
_SMALL = 100.0


@dataclass(frozen=True)
class Sizes:
    """Sizes in memory, in MB.

    Attributes:
        model: the weights of the model, in its dtype.
        weights32: the weights of the model in float32, as training needs them.
        sae: encoder and decoder of the largest SAE in float32.
        saes: those of the SAEs of all layers together.
        judges: the weights of the largest judge in float32; 0 without a judge that is a model.
    """

    model: float
    weights32: float
    sae: float
    saes: float
    judges: float

    def megabytes(self, **times: float) -> int:
        """Return the memory of a job that needs so many times the size of each."""
        return round(BASE + sum(factor * getattr(self, name) for name, factor in times.items()))

    @property
    def cores(self) -> int:
        """How many cores a job can use."""
        return 1 if self.model < _SMALL else 2


def sizes_of(resources: Mapping[str, Any]) -> Sizes:
    """Return the sizes of what the fetch stage describes in ``resources.json``."""
    width = resources["shape"]["d_model"]
    saes = [2 * sae["d_sae"] * width * 4 / 1e6 for sae in resources["saes"]]
    count = resources["parameters"]
    return Sizes(
        model=count["model"] * _BYTES[resources["model"]["dtype"]] / 1e6,
        weights32=count["model"] * 4 / 1e6,
        sae=max(saes),
        saes=sum(saes),
        judges=count["judges"] * 4 / 1e6,
    )


def read_sizes(path: str | Path) -> Sizes | None:
    """Read the sizes from a file; None if it is not there, or no stage can read it either."""
    try:
        return sizes_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError):
        return None
