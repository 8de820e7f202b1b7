"""The steering methods, each an object with ``fit`` and ``compute_steering_vector``."""

from steering_core.methods.base import SteeringMethod
from steering_core.methods.directions import (
    CAAContrastive,
    CAAMeanDiff,
    CAARepE,
    FitData,
    NoSteering,
    RandomDirection,
    SingleFeature,
    TopKFeatures,
)
from steering_core.methods.programs import ConvexOptimalSteering, InfeasibleError, QPOptimalSteering

__all__ = [
    "CAAContrastive",
    "CAAMeanDiff",
    "CAARepE",
    "ConvexOptimalSteering",
    "FitData",
    "InfeasibleError",
    "NoSteering",
    "QPOptimalSteering",
    "RandomDirection",
    "SingleFeature",
    "SteeringMethod",
    "TopKFeatures",
]
