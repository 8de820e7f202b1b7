"""Solution rows of the program variants: one per (variant, program, parameter, input)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

from steering_core.errors import ConfigError
from steering_core.methods.solutions import SOLVED, ModelUnits
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Program, Solutions
from steering_core.optimize.working_set.solver import WorkingSetSolutions
from steering_core.optimize.working_set.variants import (
    ConceptSubspace,
    VariantPrograms,
    fit_subspace,
)
from steering_core.probes.linear_probe import LinearProbe
from steering_core.progress import progress

_VALUES = ("objective", "dual_objective", "relative_gap", "dual_violation", "l1", "residual_norm")
#: Columns of the rows: the program, its solution, and the effect on the evaluation probe.
COLUMNS = (
    *("variant", "program", "tau", "parameter", "example_id", "status", *_VALUES, "l0"),
    *("iterations", "rounds", "inner", "eval_probe_base", "eval_probe_steered"),
)


def rows_outside(
    logits: Float[np.ndarray, " n"], most: int, seed: int = 0
) -> Int[np.ndarray, " m"]:
    """Return the positions of up to ``most`` rows outside the target class, in their order.

    Args:
        logits: of the oriented probe; a row is outside where it is <= 0.
        most: if there are more, so many are drawn at random.
        seed: of the draw.
    """
    outside = np.flatnonzero(logits <= 0)
    if outside.size <= most:
        return outside
    return np.sort(np.random.default_rng(seed).choice(outside, most, replace=False))


def concept_subspace(
    residuals: Float[np.ndarray, "n d_model"],
    labels: Int[np.ndarray, " n"],
    target_class: int,
    components: int,
    directions: int,
) -> ConceptSubspace:
    """Fit the concept subspace to training rows.

    Raises:
        ConfigError: if there are too few training rows for so many directions.
    """
    most = min(len(residuals), residuals.shape[1]) - 1
    if directions > most:
        raise ConfigError(
            f"subspace_directions: {directions} are asked for, and {len(residuals)} training rows "
            f"of {residuals.shape[1]} dimensions have {most} at most"
        )
    return fit_subspace(residuals, labels, target_class, components, directions)


def variant_grid(
    variants: Iterable[str], qp_lambda: Iterable[float], epsilon: Iterable[float]
) -> list[tuple[str, Program, float]]:
    """Return every (variant, program, parameter), in the order of the configuration."""
    programs: list[tuple[Program, float]] = [("qp", value) for value in qp_lambda]
    programs += [("socp", value) for value in epsilon]
    return [(variant, program, value) for variant in variants for program, value in programs]


def variants_of_test_rows(
    settings: Any,
    train: pd.DataFrame,
    test_ids: Sequence[str],
    *,
    residuals_of: Callable[[Sequence[str]], Float[np.ndarray, "n d_model"]],
    features_of: Callable[[Sequence[str]], sparse.spmatrix],
    probe: LinearProbe,
    evaluation_probe: LinearProbe,
    dictionary: Dictionary,
    path: SteeringPath,
    target_class: int,
    units: ModelUnits,
) -> pd.DataFrame:
    """Solve the variants that ``settings`` name, for test rows that start outside the target class.

    The limits and the concept subspace are learned from training rows.

    Args:
        settings: of the experiment: the variants' own, and ``seed``.
        train: the examples of the training split.
        test_ids: names of the test rows.
        residuals_of: their residuals, by name, as the site sees them.
        features_of: their activations f(h), by name, ``(n, d_sae)``.
        probe: oriented to the target class.
        evaluation_probe: oriented to the target class.
        dictionary: the decoder.
        path: of the probe on the dictionary.
        target_class: 0 or 1.
        units: of the model. The settings say whether their margin and parameters are in them.

    Returns:
        As :func:`solve_variants`, and the margin and the parameter in units of the model.

    Raises:
        ConfigError: as :func:`concept_subspace`.
    """
    residuals = residuals_of(test_ids).astype(np.float64)
    logits = probe.decision(residuals)
    given = settings.units == "model"
    one = {part: units.one(part) if given else 1.0 for part in ("tau", "lam", "epsilon")}
    tau = settings.variant_tau * one["tau"]
    chosen = rows_outside(logits, settings.variant_rows, settings.seed)
    ids = np.asarray(test_ids)[chosen].tolist()
    programs = VariantPrograms(
        path=path,
        dictionary=dictionary,
        residuals=residuals[chosen],
        shortfall=tau - logits[chosen],
        activations=sparse.csr_array(features_of(ids)),
        largest=features_of(train["example_id"]).max(axis=0).toarray()[0],
        subspace=concept_subspace(
            residuals_of(train["example_id"]),
            train["label"].to_numpy(dtype=int),
            target_class,
            settings.subspace_components,
            settings.subspace_directions,
        ),
        prefilter_features=settings.prefilter_features,
        box_factor=settings.box_factor,
        cone_solver=settings.cone_solver,
    )
    grid = variant_grid(
        settings.variants,
        [value * one["lam"] for value in settings.variant_lambda],
        [value * one["epsilon"] for value in settings.variant_epsilon],
    )
    rows = solve_variants(programs, grid, ids, tau, evaluation_probe)
    per_program = rows["program"].map({"qp": units.one("lam"), "socp": units.one("epsilon")})
    return rows.assign(
        tau_model=_rounded(rows["tau"] / units.one("tau")),
        parameter_model=_rounded(rows["parameter"] / per_program),
    )


def _rounded(values: pd.Series) -> pd.Series:
    """Return values without the rounding error of a product that was divided again."""
    return values.astype(float).map(lambda value: float(f"{value:.12g}"))


def solve_variants(
    programs: VariantPrograms,
    grid: Sequence[tuple[str, Program, float]],
    example_ids: Sequence[str],
    tau: float,
    evaluation_probe: LinearProbe,
) -> pd.DataFrame:
    """Solve every variant for every input, and evaluate the result with the evaluation probe.

    Args:
        programs: of the inputs.
        grid: from :func:`variant_grid`.
        example_ids: names of the inputs.
        tau: margin of the probe that ``programs.shortfall`` was made with, logits.
        evaluation_probe: oriented to the target class.

    Returns:
        The columns :data:`COLUMNS`. For ``subspace``, ``tau`` is NaN, since it has thresholds of
        its own. For ``path``, which does not iterate, ``iterations`` and ``rounds`` are NaN and
        ``inner`` is empty. ``eval_probe_steered`` is NaN unless solved to tolerance. Without
        inputs there are no rows.
    """
    if not example_ids:
        return pd.DataFrame(columns=list(COLUMNS))
    names = pd.DataFrame({"example_id": list(example_ids)})
    before = evaluation_probe.decision(programs.residuals)
    frames = []
    for variant, program, parameter in progress(grid, "solving variants"):
        solved = programs.solve(variant, program, parameter)
        moved = solved.vector @ evaluation_probe.weight_vector
        frames.append(
            names.assign(
                variant=variant,
                program=program,
                tau=np.nan if variant == "subspace" else tau,
                parameter=parameter,
                **{
                    column: values if len(values) == len(names) else np.repeat(values, len(names))
                    for column, values in _columns(solved, moved).items()
                },
                eval_probe_base=before,
            )
        )
    rows = pd.concat(frames, ignore_index=True)
    moved = rows.pop("moved").where(rows["status"].isin(SOLVED))
    return rows.assign(eval_probe_steered=rows["eval_probe_base"] + moved)[list(COLUMNS)]


def _columns(
    solved: Solutions | WorkingSetSolutions, moved: Float[np.ndarray, " n"]
) -> dict[str, Any]:
    columns: dict[str, Any] = {"status": solved.status}
    columns |= {name: np.asarray(getattr(solved, name), dtype=float) for name in _VALUES}
    columns["l0"] = np.where(solved.solved, solved.l0, np.nan)
    if isinstance(solved, WorkingSetSolutions):
        columns["iterations"] = solved.iterations.astype(float)
        columns["rounds"], columns["inner"] = solved.rounds.astype(float), solved.inner
    else:
        columns["iterations"] = columns["rounds"] = np.full(len(solved), np.nan)
        columns["inner"] = np.full(len(solved), "")
    return columns | {"moved": moved}
