"""The methods of optimal sparse steering, learned from the training rows of a CorrSteer task.

The programs move a probe of success past a margin with the selected features alone; the fixed
directions are the same as everywhere, with success in place of the label.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from steering_core.config.methods import BASELINE, is_program
from steering_core.corrsteer.bridge_learned import Added, Learned, Residuals, Strength
from steering_core.corrsteer.bridge_programs import program_strengths
from steering_core.errors import DataError
from steering_core.methods.directions import (
    DIRECTIONS,
    CAAContrastive,
    CAAMeanDiff,
    CAARepE,
    FitData,
    FixedDirection,
    make_direction,
)

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Bridge


def strengths(method: str, bridge: "Bridge", learned: Learned) -> list[Strength]:
    """Return every strength of a method, the weakest first, as the bridge is configured.

    Raises:
        DataError: if the training rows do not have what the method learns from, such as both
            outcomes.
        ValueError: naming ``method``, if there is none of that name.
    """
    if method in DIRECTIONS and method != BASELINE:
        return _fixed(make_direction(method, bridge.topk), bridge, learned)
    if is_program(method):
        return program_strengths(method, bridge, learned)
    raise ValueError(f"method: there is no {method!r} in the bridge")


def _fixed(method: FixedDirection, bridge: "Bridge", learned: Learned) -> list[Strength]:
    nothing = np.zeros((0, learned.residuals.shape[1]))
    contrast = learned.contrast() if isinstance(method, CAAContrastive) else (nothing, nothing)
    personas = learned.personas() if isinstance(method, CAARepE) else (nothing, nothing)
    if isinstance(method, CAAContrastive) and not len(contrast[0]):
        raise DataError("there is no wrong answer to make a pair with")
    if isinstance(method, CAAMeanDiff) and learned.success.all() == learned.success.any():
        raise DataError("one outcome only")
    data = FitData(
        learned.residuals.astype(np.float64),
        learned.success.astype(int),
        *contrast,
        *personas,
        learned.correlation,
        seed=learned.seed,
        centred=learned.centred,
    )
    try:
        direction = method.find(data, learned.dictionary)
    except ValueError as error:
        raise DataError(f"no direction: {error}") from error
    used = None if direction.features is None else len(direction.features)

    def add(strength: float, residuals: Residuals) -> Added:
        n = len(residuals)
        vector = strength * data.residual_norm * direction.vector
        features = None if used is None else np.full(n, used)
        return Added(np.repeat(vector[None], n, axis=0), features, [""] * n)

    return [Strength(f"alpha {alpha:g}", partial(add, alpha)) for alpha in bridge.strengths]
