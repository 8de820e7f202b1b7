"""What the arms of an experiment need to have accumulated."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steering_core.corrsteer.variant import Pooling, Variant

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Arm

UNSTEERED = "unsteered"


def variant_of(arm: "Arm", task_pooling: Pooling) -> Variant:
    """Return what the arm scores features on."""
    pooling = task_pooling if arm.pooling == "task" else arm.pooling
    return Variant(arm.space, arm.mask, pooling)


def coefficient_variant_of(arm: "Arm", task_pooling: Pooling) -> Variant:
    """Return what the arm takes coefficients from."""
    scored = variant_of(arm, task_pooling)
    if arm.coefficient_pooling == "same":
        return scored
    return Variant(arm.space, arm.mask, arm.coefficient_pooling)


def variants(arms: Mapping[str, "Arm"], task_pooling: Pooling) -> tuple[list[str], list[str]]:
    """Return, as text, the variants to accumulate and those that need a histogram."""
    own = [arm for arm in arms.values() if arm.features_from is None]
    wanted = {variant_of(arm, task_pooling) for arm in own}
    wanted |= {coefficient_variant_of(arm, task_pooling) for arm in own}
    histograms = {variant_of(arm, task_pooling) for arm in own if arm.score == "mutual_information"}
    return [str(v) for v in sorted(wanted)], [str(v) for v in sorted(histograms)]


def needs_validation(arm: "Arm") -> bool:
    """Whether the arm's layers are judged one by one on the validation rows."""
    return arm.strategy in ("pruned", "validated")
