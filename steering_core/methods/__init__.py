"""The steering methods, each an object with ``fit`` and ``compute_steering_vector``."""

from steering_core.methods.base import FitData, SteeringMethod
from steering_core.methods.contrastive import CAAContrastive, CAAMeanDiff, CAARepE
from steering_core.methods.features import SingleFeature, TopKFeatures
from steering_core.methods.optimal import (
    ConvexOptimalSteering,
    InfeasibleError,
    QPOptimalSteering,
)
from steering_core.methods.reference import NoSteering, RandomDirection

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
