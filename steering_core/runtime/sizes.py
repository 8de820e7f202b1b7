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
        sae: encoder and decoder of the largest SAE in float32.
        judges: the weights of the largest judge in float32; 0 without a judge that is a model.
    """

    model: float
    sae: float
    judges: float

    def megabytes(self, model: float = 0, sae: float = 0, judges: float = 0) -> int:
        """Return the memory of a job that needs so many times the size of each."""
        return round(BASE + model * self.model + sae * self.sae + judges * self.judges)

    @property
    def cores(self) -> int:
        """How many cores a job can use."""
        return 1 if self.model < _SMALL else 2


def sizes_of(resources: Mapping[str, Any]) -> Sizes:
    """Return the sizes of what the fetch stage describes in ``resources.json``."""
    width = resources["shape"]["d_model"]
    features = max(sae["d_sae"] for sae in resources["saes"])
    count = resources["parameters"]
    return Sizes(
        model=count["model"] * _BYTES[resources["model"]["dtype"]] / 1e6,
        sae=2 * features * width * 4 / 1e6,
        judges=count["judges"] * 4 / 1e6,
    )


def read_sizes(path: str | Path) -> Sizes | None:
    """Read the sizes from a file; None if it is not there, or no stage can read it either."""
    try:
        return sizes_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError):
        return None
