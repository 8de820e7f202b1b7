"""The methods that add one fixed direction, as the configuration names them."""

from steering_core.config.settings import Settings
from steering_core.methods.base import FixedDirection
from steering_core.methods.contrastive import CAAContrastive, CAAMeanDiff, CAARepE
from steering_core.methods.features import SingleFeature, TopKFeatures
from steering_core.methods.reference import NoSteering, RandomDirection


def fixed_methods(settings: Settings) -> list[FixedDirection]:
    """Return the configured methods that add one fixed direction, unfitted."""
    known: list[FixedDirection] = [
        NoSteering(),
        RandomDirection(),
        CAAMeanDiff(),
        CAAContrastive(),
        CAARepE(),
        SingleFeature(),
        TopKFeatures(k=settings.topk),
    ]
    return [method for method in known if method.name in settings.methods]
