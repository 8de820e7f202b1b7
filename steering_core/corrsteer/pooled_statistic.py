"""The numbers of a sample that selection accumulates, and those that the arms of a run need.

This module imports no model library, because the workflow reads it at every start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Arm

Space = Literal["features", "raw"]
Mask = Literal["generation", "all"]
Pooling = Literal["max", "mean"]


@dataclass(frozen=True, order=True)
class PooledStatistic:
    """A number per sample and feature: an activation, pooled over positions.

    Attributes:
        space: ``features`` of an SAE, or the ``raw`` dimensions of the residual stream.
        mask: ``generation`` are the positions that produce a token: the last of the prompt and
            every generated one that was fed back. ``all`` adds the rest of the prompt, without
            padding and without BOS.
        pooling: over those positions.
    """

    space: Space = "features"
    mask: Mask = "generation"
    pooling: Pooling = "max"

    def __str__(self) -> str:
        return f"{self.space}-{self.mask}-{self.pooling}"

    @classmethod
    def parse(cls, text: str) -> "PooledStatistic":
        """Return the statistic from its text."""
        space, mask, pooling = text.split("-")
        return cls(space, mask, pooling)  # type: ignore[arg-type]


def statistic_of(arm: "Arm", task_pooling: Pooling) -> PooledStatistic:
    """Return the statistic that the arm scores features on."""
    pooling = task_pooling if arm.pooling == "task" else arm.pooling
    return PooledStatistic(arm.space, arm.mask, pooling)


def coefficient_statistic_of(arm: "Arm", task_pooling: Pooling) -> PooledStatistic:
    """Return the statistic that the arm takes coefficients from."""
    scored = statistic_of(arm, task_pooling)
    if arm.coefficient_pooling == "same":
        return scored
    return PooledStatistic(arm.space, arm.mask, arm.coefficient_pooling)


def statistics_of(arms: Mapping[str, "Arm"], task_pooling: Pooling) -> tuple[list[str], list[str]]:
    """Return, as text, the statistics to accumulate and those that need a histogram."""
    own = [arm for arm in arms.values() if arm.selects]
    scored = {statistic_of(arm, task_pooling) for arm in own}
    measured = {coefficient_statistic_of(arm, task_pooling) for arm in own}
    histograms = {
        statistic_of(arm, task_pooling) for arm in own if arm.score == "mutual_information"
    }
    return [str(s) for s in sorted(scored | measured)], [str(s) for s in sorted(histograms)]


def needs_validation(arm: "Arm") -> bool:
    """Return True if the arm's layers are judged one by one on the validation rows."""
    return arm.intervention_from is None and arm.strategy in ("pruned", "validated")
