"""Effects of steering on the probes, row by row: before and after, and at equal norm."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.solution_vectors import MethodRows, PlanAtSite, SolutionVectors
from steering_core.methods.solutions import PARTS, solved
from steering_core.probes.linear_probe import LinearProbe


def probe_effects(
    interventions: SolutionVectors | PlanAtSite,
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    evaluation_probe: LinearProbe,
) -> pd.DataFrame:
    """Return logits before and after, one row per (strength, example).

    Logits after steering are NaN for an input without a solution. The programs enforce the fitted
    probe's score, so judge by the evaluation probe, which is fitted on rows that no method uses.

    Args:
        interventions: solutions of one method.
        example_ids: ids of the rows.
        residuals: residuals at the site, in the order of ``example_ids``.
        probe: the fitted probe, oriented to the target class.
        evaluation_probe: the evaluation probe, oriented to the target class.
    """
    residuals = residuals.astype(np.float64)
    weights = np.stack([probe.weight_vector, evaluation_probe.weight_vector], axis=1)
    before = residuals @ weights + np.array([probe.bias, evaluation_probe.bias])
    frames = []
    for index in interventions.points():
        rows = interventions.at(index, example_ids)
        after = before + interventions.vectors(rows) @ weights
        after[~solved(rows)] = np.nan
        frames.append(
            pd.DataFrame(
                {
                    "strength_index": index,
                    "example_id": list(example_ids),
                    "status": rows["status"],
                    "probe_base": before[:, 0],
                    "probe_steered": after[:, 0],
                    "eval_probe_base": before[:, 1],
                    "eval_probe_steered": after[:, 1],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def without_probe_effects(interventions: MethodRows, example_ids: Sequence[str]) -> pd.DataFrame:
    """Return the rows of :func:`probe_effects` where the probe's site is not steered: all NaN."""
    rows = [interventions.at(index, example_ids) for index in interventions.points()]
    table = pd.concat(rows, ignore_index=True)[["strength_index", "example_id", "status"]]
    logits = [
        f"{probe}_{when}" for probe in ("probe", "eval_probe") for when in ("base", "steered")
    ]
    return table.assign(**dict.fromkeys(logits, np.nan))


_POINT = ["method", "strength_index", "strength_name", "strength", *PARTS]


def all_norm_matched_effects(
    programs: Iterable[SolutionVectors],
    directions: Mapping[str, Float[np.ndarray, " d_model"]],
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    evaluation_probe: LinearProbe,
) -> pd.DataFrame:
    """Return the rows of :func:`norm_matched_effects` for several programs, or no rows."""
    frames = [
        norm_matched_effects(program, directions, example_ids, residuals, evaluation_probe)
        for program in programs
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def norm_matched_effects(
    program: SolutionVectors,
    directions: Mapping[str, Float[np.ndarray, " d_model"]],
    example_ids: Sequence[str],
    residuals: Float[np.ndarray, "n d_model"],
    evaluation_probe: LinearProbe,
) -> pd.DataFrame:
    """Compare a program with each direction on each row, with vectors of the same norm.

    The result has a row per (strength, direction, example), for examples with a solution that the
    evaluation probe puts outside the target class. ``norm`` is ‖Dᵀδ‖ of the example, and 0 if the
    fitted probe is past the margin before steering. The direction, of any length, is scaled to this
    norm. ``program_flipped`` and ``direction_flipped`` are true if the evaluation probe puts the
    steered row inside the target class.

    Args:
        program: solutions of one method that solves a program.
        directions: directions towards the target class, by the name of their method.
        example_ids: ids of the rows.
        residuals: residuals at the site.
        evaluation_probe: evaluation probe, oriented to the target class.

    Raises:
        ValueError: if a direction is zero.

    """
    weight = evaluation_probe.weight_vector
    before = evaluation_probe.decision(residuals)
    gains = {name: _gain(vector, weight, name) for name, vector in directions.items()}
    frames = []
    for index in program.points():
        rows = program.at(index, example_ids)
        used = solved(rows) & (before <= 0)
        rows, base = rows[used], before[used]
        vectors = program.vectors(rows)
        norms = np.linalg.norm(vectors, axis=1)
        for name, gain in gains.items():
            frames.append(
                rows[[*_POINT, "example_id"]].assign(
                    direction=name,
                    norm=norms,
                    program_flipped=base + vectors @ weight > 0,
                    direction_flipped=base + norms * gain > 0,
                )
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _gain(
    vector: Float[np.ndarray, " d_model"], weight: Float[np.ndarray, " d_model"], name: str
) -> float:
    """Return the gain of the probe's logit per unit of norm along ``vector``."""
    norm = float(np.linalg.norm(vector))
    if not norm > 0:
        raise ValueError(f"directions: {name} is zero, so no norm can be matched")
    return float(vector @ weight) / norm
