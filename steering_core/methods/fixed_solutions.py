"""Solution rows of the fixed directions: every strength, the same for every input.

These are apart from :mod:`steering_core.methods.solutions`, which later stages import too, so that
an edit here makes only the solutions of the directions stale.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE, LORA, PROMPTING
from steering_core.methods.base import ALPHA, Direction
from steering_core.methods.solutions import GridPoint, solution_rows, with_split

if TYPE_CHECKING:
    from steering_core.config.schema import Settings


def fixed_grid(method: str, settings: "Settings") -> list[GridPoint]:
    """Return every strength of a fixed direction, prompting or LoRA, in the order given."""
    if method == BASELINE:
        return [GridPoint(method, 0, ALPHA, 0.0)]
    if method == PROMPTING:
        return [GridPoint(method, 0, "instruction", 1.0)]
    if method == LORA:
        return _scales(settings.lora.scales)
    return [GridPoint(method, i, ALPHA, strength) for i, strength in enumerate(settings.strengths)]


def solve_fixed(
    points: Sequence[GridPoint], example_ids: Sequence[str], direction: Direction, unit: float
) -> pd.DataFrame:
    """Return the rows of a fixed direction: the same for every input."""
    coefficients = direction.coefficients
    frames = []
    for point in points:
        size = point.strength * unit
        frames.append(
            solution_rows(
                point,
                example_ids,
                status="fixed",
                shortfall=np.nan,
                position=np.nan,
                objective=np.nan,
                dual_objective=np.nan,
                relative_gap=np.nan,
                dual_violation=np.nan,
                l0=np.nan if coefficients is None else float(np.count_nonzero(coefficients)),
                l1=np.nan if coefficients is None else size * float(np.abs(coefficients).sum()),
                residual_norm=size * float(np.linalg.norm(direction.vector)),
            )
        )
    return pd.concat(frames, ignore_index=True)


def solve_plan(
    method: str,
    scales: Sequence[float],
    norm: float,
    n_features: int | None,
    examples: pd.DataFrame,
) -> pd.DataFrame:
    """Return a row per (scale of a CorrSteer plan, input), with the input's ``split``.

    Args:
        method: the name of the plan in the experiment.
        scales: what the plan's vectors are multiplied by.
        norm: of what is added at scale 1, over all layers together.
        n_features: how many features are steered in all layers; None for raw dimensions.
        examples: ``example_id`` and ``split`` of the n inputs.
    """
    nothing = ("shortfall", "position", "objective", "dual_objective", "relative_gap")
    frames = [
        solution_rows(
            GridPoint(method, i, "scale", scale),
            examples["example_id"].tolist(),
            status="fixed",
            **dict.fromkeys([*nothing, "dual_violation", "l1"], np.nan),
            l0=np.nan if n_features is None else float(n_features),
            residual_norm=scale * norm,
        )
        for i, scale in enumerate(scales)
    ]
    return with_split(frames, examples)


def solve_prompting(examples: pd.DataFrame) -> pd.DataFrame:
    """Return a row per input for the text before the prompt, which adds nothing to the residuals.

    Args:
        examples: ``example_id`` and ``split`` of the n inputs.
    """
    return _without_vector([GridPoint(PROMPTING, 0, "instruction", 1.0)], examples)


def solve_lora(scales: Sequence[float], examples: pd.DataFrame) -> pd.DataFrame:
    """Return a row per (scale of the adapter, input); it adds no vector, so it has no size.

    Args:
        scales: what the adapter's change of the weights is multiplied by.
        examples: ``example_id`` and ``split`` of the n inputs.
    """
    return _without_vector(_scales(scales), examples)


def _scales(scales: Sequence[float]) -> list[GridPoint]:
    return [GridPoint(LORA, i, "scale", scale) for i, scale in enumerate(scales)]


def _without_vector(points: Sequence[GridPoint], examples: pd.DataFrame) -> pd.DataFrame:
    nothing = ("shortfall", "position", "objective", "dual_objective", "relative_gap")
    sizes = ("dual_violation", "l0", "l1", "residual_norm")
    frames = [
        solution_rows(
            point,
            examples["example_id"].tolist(),
            status="fixed",
            **dict.fromkeys([*nothing, *sizes], np.nan),
        )
        for point in points
    ]
    return with_split(frames, examples)


def solve_directions(
    settings: "Settings",
    examples: pd.DataFrame,
    direction_of: Callable[[str], tuple[Direction, float]],
) -> pd.DataFrame:
    """Return a row per (grid point of a fixed direction, input), with the input's ``split``.

    Args:
        settings: methods and strengths.
        examples: ``example_id`` and ``split`` of the n inputs.
        direction_of: returns the direction and the mean residual norm of a method.
    """
    ids = examples["example_id"].tolist()
    frames = [
        solve_fixed(fixed_grid(method, settings), ids, *direction_of(method))
        for method in settings.methods
    ]
    return with_split(frames, examples)
