"""The path of a probe on a dictionary, to its end: no setting says how far."""

import logging
from typing import Any

import numpy as np

from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.path import SteeringPath

log = logging.getLogger(__name__)


def whole_path(decoder: Any, probe_weight: Any) -> SteeringPath:
    """Return the path, complete; or as far as float64 can follow it, which is then logged.

    Args:
        decoder: ``(d_sae, d_model)``, numpy or torch, any float type; or a ``Dictionary``.
        probe_weight: ``(d_model,)``, oriented so that the target class scores higher.

    Raises:
        ValueError: naming the argument, for wrong shapes and values that are not finite.
    """
    path = SteeringPath.fit(decoder, probe_weight)
    try:
        path.extend(np.inf)
    except DegeneratePathError as error:
        log.warning("inputs beyond s = %.6g will have failed: %s", path.knots.reach, error)
    return path
