"""Programs that the configuration declares: any direction, a metric, one margin for all inputs.

The registered programs are one choice of these: the probe's logit as the margin, the plain norm,
and for each input its own shortfall.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf

from steering_core.config.methods import directions_of, needs_fisher
from steering_core.methods.directions import DIRECTIONS, FOUND_BY, FitData
from steering_core.methods.guard_directions import guard_rows
from steering_core.methods.programs import (
    ConvexOptimalSteering,
    QPOptimalSteering,
    fits_shared_vector,
)
from steering_core.methods.ready_programs import ReadyProgram, Sparse
from steering_core.methods.solution_vectors import ProgramLogit
from steering_core.methods.solutions import (
    GridPoint,
    ModelUnits,
    median_norm,
    solution_rows,
    with_split,
)
from steering_core.optimize.substitution import matrix_power
from steering_core.optimize.working_set.bounds import Guards
from steering_core.probes.fit import calibrated
from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.fisher import Fisher

if TYPE_CHECKING:
    from steering_core.config.schema import DeclaredProgram


@dataclass(frozen=True, eq=False)
class Solved:
    """The solutions of a declared program.

    Attributes:
        rows: a row per (strength, input), as :mod:`steering_core.methods.solutions` makes them.
        vectors: the different vectors; NaN where there is no solution.
        index: which of ``vectors`` each row adds.
        weight: of the logit whose margin is asked for, oriented to the target class; of k logits,
            ``(k, d_model)``.
        bias: its bias; of k logits, ``(k,)``.
        metric: A² of the metric; None for the identity.
        cost: of each feature; None where each costs 1.
        guards: of the residual; None without guards.
        guard_rows: what each guard costs and saves, a row per (strength, input, guard); see
            :mod:`steering_core.methods.guard_directions`. None without guards.
    """

    rows: pd.DataFrame
    vectors: Float[np.ndarray, "m d_model"]
    index: Int[np.ndarray, " n"]
    weight: Float[np.ndarray, "*k d_model"]
    bias: float | Float[np.ndarray, " k"]
    metric: Float[np.ndarray, "d_model d_model"] | None
    cost: Float[np.ndarray, " d_sae"] | None
    guards: Guards | None = None
    guard_rows: pd.DataFrame | None = None


def oriented_logit(
    concept_direction: str, probe: LinearProbe | None, data: FitData
) -> tuple[Float[np.ndarray, " d_model"], float]:
    """Return weight and bias of the logit that a margin is on.

    Args:
        concept_direction: ``probe``, or a direction that is calibrated on the training rows.
        probe: oriented to the target class; None if no margin is on it.
        data: training rows and the concept's own texts.

    Raises:
        DataError: as :func:`steering_core.probes.fit.calibrated`.
        ValueError: naming ``probe`` or ``data``, if it lacks the direction.
    """
    if concept_direction == "probe":
        if probe is None:
            raise ValueError("probe: the margin is on it, and there is none")
        return probe.weight_vector, probe.bias
    if concept_direction == "likelihood_gradient":
        if data.likelihood_gradient is None:
            raise ValueError("data: the likelihood gradient is missing")
        unit = data.likelihood_gradient / np.linalg.norm(data.likelihood_gradient)
    else:
        unit = DIRECTIONS[FOUND_BY[concept_direction]]().find(data, np.zeros((0, 0))).vector
    return calibrated(unit, data.residuals, data.labels == data.target_class, concept_direction)


def program_grid(
    name: str,
    declared: "DeclaredProgram",
    path: Sparse | None = None,
    unit: float = 1.0,
) -> list[GridPoint]:
    """Return every strength of a declared program, in the order of the registered ones.

    As for the registered programs, the strength is the margin, and the budget ε of an SOCP. Its
    parts are as configured. With counts of features, ``path`` gives the λ of each: at a count,
    every margin has the same place on the path, so the vectors differ in length alone.

    Args:
        name: of the program.
        declared: what it is.
        path: on which a count of features has its λ; needed with counts alone.
        unit: what τ = 1 times λ = 1, as configured, is in absolute units.
    """
    points: list[GridPoint] = []
    if declared.program == "dense":
        return [GridPoint(name, i, "tau", tau, tau) for i, tau in enumerate(declared.tau)]
    if declared.features is not None:
        for count in declared.features:
            called, knot = f"tau at features={count}", path.last_position_within(count)
            position = knot * (1 - 1e-9)  # λ is rounded, and past the knot there is one more
            points += [
                GridPoint(name, 0, called, tau, tau, qp_lambda=position / (tau * unit))
                for tau in declared.tau
            ]
    elif declared.program == "qp":
        for qp_lambda in declared.qp_lambda:
            called = QPOptimalSteering(qp_lambda=qp_lambda).strength_name
            points += [
                GridPoint(name, 0, called, tau, tau, qp_lambda=qp_lambda) for tau in declared.tau
            ]
    else:
        for tau in declared.tau:
            called = ConvexOptimalSteering(tau=tau).strength_name
            points += [GridPoint(name, 0, called, e, tau, epsilon=e) for e in declared.epsilon]
    return [GridPoint(**{**vars(p), "strength_index": i}) for i, p in enumerate(points)]


def solve_declared(
    name: str,
    declared: "DeclaredProgram",
    examples: pd.DataFrame,
    residuals: Float[np.ndarray, "n d_model"],
    probe: LinearProbe,
    data: FitData,
    decoder: Float[np.ndarray, "d_sae d_model"],
    fisher: Fisher | None = None,
    guards: Guards | None = None,
    units: Literal["model", "absolute"] = "absolute",
) -> Solved:
    """Solve a declared program at every strength for every input.

    Args:
        name: of the program, in the configuration.
        declared: what it is.
        examples: ``example_id``, ``split`` and ``label`` of the n inputs.
        residuals: of the inputs, as the site sees them.
        probe: oriented to the target class.
        data: training rows and the concept's own texts.
        decoder: a row per feature.
        fisher: what vectors cost in KL; a program with ``fisher`` in it needs it.
        guards: of the residual.
        units: of the configured strengths. In units of the model, every direction of several has
            its own typical logit; the rows have the margin on the first.

    Raises:
        DataError: as :func:`oriented_logit` and :class:`ModelUnits`.
        ValueError: naming ``fisher``, if it is needed and not given.
    """
    validation = residuals[(examples["split"] == "validation").to_numpy()]
    ready = learn_program(
        declared,
        data,
        decoder,
        validation=validation,
        probe=probe,
        fisher=fisher,
        guards=guards,
        units=units,
    )
    logits = ready.logits(residuals)
    outside = fits_shared_vector(examples, data.target_class)
    if declared.mode == "shared" and not outside.any():
        raise ValueError("examples: no validation row is outside the target class")
    model = typical_units(ready, validation, data)
    ids, guarding = examples["example_id"].tolist(), []
    frames, vectors, index = [], [], []
    for point in program_points(name, declared, ready, model, units):
        shortfall = ready.shortfalls(logits, float(point.tau), logits[outside])
        found = ready.solve(shortfall, qp_lambda=point.qp_lambda, epsilon=point.epsilon)
        if found.guarded is not None:
            status = found.columns["status"]
            guarding += guard_rows(
                point, ids, guards, status, found.guarded, found.vectors, found.free
            )
        frames.append(solution_rows(point, ids, **found.columns))
        once = declared.mode in ("uniform", "shared")
        start = sum(map(len, vectors))
        vectors.append(found.vectors[:1] if once else found.vectors)
        n = len(found.vectors)
        index.append(start + (np.zeros(n) if once else np.arange(n)))
    return Solved(
        rows=with_split(frames, examples),
        vectors=np.concatenate(vectors),
        index=np.concatenate(index).astype(np.int64),
        weight=ready.logit.weight,
        bias=ready.logit.bias,
        metric=ready.logit.metric,
        cost=ready.logit.cost,
        guards=guards,
        guard_rows=with_split(guarding, examples) if guarding else None,
    )


def learn_program(
    declared: "DeclaredProgram",
    data: FitData,
    decoder: Float[np.ndarray, "d_sae d_model"],
    *,
    validation: Float[np.ndarray, "m d_model"],
    probe: LinearProbe | None = None,
    fisher: Fisher | None = None,
    guards: Guards | None = None,
    units: Literal["model", "absolute"] = "absolute",
) -> ReadyProgram:
    """Learn what a declared program's margins are on, and prepare what solves it.

    Args:
        declared: what it is.
        data: training rows and the texts that directions are learned from.
        decoder: a row per feature.
        validation: residuals that tell the typical logit of each direction.
        probe: oriented to the target class; a margin on the probe needs it.
        fisher: what vectors cost in KL; a program with ``fisher`` in it needs it.
        guards: of the residual.
        units: of the margins; in units of the model a margin on several directions is as many
            typical logits of each, so their logits are scaled to the first.

    Raises:
        DataError: as :func:`oriented_logit` and :class:`ModelUnits`.
        ValueError: naming what is needed and not given, or as :func:`covariance_metric`.
    """
    found_on = [oriented_logit(one, probe, data) for one in directions_of(declared)]
    if units == "model":  # so that the margin on every direction is as many of its typical logits
        h, norm = validation.astype(np.float64), median_norm(data.residuals)
        typical = [ModelUnits(_typical(h @ w + b), norm).logit for w, b in found_on]
        found_on = [
            (w * typical[0] / size, b * typical[0] / size)
            for (w, b), size in zip(found_on, typical, strict=True)
        ]
    metric, cost = _metric_and_cost(declared, data, decoder, fisher)
    several = len(found_on) > 1
    logit = ProgramLogit(
        declared.program,
        np.stack([weight for weight, _ in found_on]) if several else found_on[0][0],
        np.array([bias for _, bias in found_on]) if several else found_on[0][1],
        metric,
        cost,
        guards,
        declared.mode,
    )
    return ReadyProgram.of(logit, decoder)


def typical_units(
    ready: ReadyProgram, validation: Float[np.ndarray, "m d_model"], data: FitData
) -> ModelUnits:
    """Return the units of the model for a program; those of its first direction.

    Raises:
        DataError: as :class:`ModelUnits`.
    """
    return ModelUnits(_typical(ready.logits(validation)[:, 0]), median_norm(data.residuals))


def _typical(logits: Float[np.ndarray, " n"]) -> float:
    return float(np.median(np.abs(logits)))


def program_points(
    name: str,
    declared: "DeclaredProgram",
    ready: ReadyProgram,
    model: ModelUnits,
    units: Literal["model", "absolute"],
) -> list[GridPoint]:
    """Return every strength of a declared program with its parts in both units."""
    unit = model.one("tau") * model.one("lam") if units == "model" else 1.0
    grid = program_grid(name, declared, ready.solves, unit)
    return [model.in_both(point, units) for point in grid]


def _metric_and_cost(
    declared: "DeclaredProgram",
    data: FitData,
    decoder: Float[np.ndarray, "d_sae d_model"],
    fisher: Fisher | None,
) -> tuple[Float[np.ndarray, "d_model d_model"] | None, Float[np.ndarray, " d_sae"] | None]:
    """Return A² and the costs of the features; None where they are the plain ones."""
    if needs_fisher(declared) and fisher is None:
        raise ValueError("fisher: the program needs the Fisher information")
    metric = cost = None
    if declared.metric == "covariance":
        metric = covariance_metric(data.residuals.astype(np.float64), data.labels)
    elif declared.metric == "fisher":
        metric = fisher.metric
    if declared.feature_cost == "fisher":
        cost = fisher.feature_cost(decoder)
    return metric, cost


def covariance_metric(
    residuals: Float[np.ndarray, "n d_model"], labels: np.ndarray
) -> Float[np.ndarray, "d_model d_model"]:
    """Return ``A² = Σ⁻¹``, Σ the covariance within classes, scaled to a mean eigenvalue of 1.

    Σ is shrunk towards a multiple of the identity (Ledoit and Wolf 2004). The scale makes λ
    comparable with that of the identity.

    Raises:
        ValueError: naming ``residuals``, if they do not vary within a class.
    """
    means = {label: residuals[labels == label].mean(axis=0) for label in np.unique(labels)}
    within = residuals - np.stack([means[label] for label in labels])
    if not within.any():
        raise ValueError("residuals do not vary within a class")
    inverse = matrix_power(ledoit_wolf(within, assume_centered=True)[0], -1.0)
    return inverse * (len(inverse) / np.trace(inverse))
