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

from steering_core.methods.directions import DIRECTIONS, FOUND_BY, FitData
from steering_core.methods.guard_directions import guard_rows
from steering_core.methods.model_units import ModelUnits, median_norm
from steering_core.methods.programs import (
    ConvexOptimalSteering,
    QPOptimalSteering,
    fits_shared_vector,
)
from steering_core.methods.solutions import GridPoint, solution_rows, with_split
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.guarded import (
    DenseSolutions,
    GuardedProgram,
    GuardedSolutions,
    guarded_dense,
)
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Solutions
from steering_core.optimize.substitution import (
    Substitution,
    dense_optima,
    dense_optimum,
    matrix_power,
    substitute,
)
from steering_core.optimize.working_set.guards import Guards
from steering_core.optimize.working_set.solver import WorkingSet, WorkingSetSolutions
from steering_core.probes.fit import calibrated
from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.fisher import Fisher

if TYPE_CHECKING:
    from steering_core.config.schema import DeclaredProgram

#: What solves a sparse program.
Sparse = SteeringPath | GuardedProgram | WorkingSet


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
    concept_direction: str, probe: LinearProbe, data: FitData
) -> tuple[Float[np.ndarray, " d_model"], float]:
    """Return weight and bias of the logit that a margin is on.

    Args:
        concept_direction: ``probe``, or a direction that is calibrated on the training rows.
        probe: oriented to the target class.
        data: training rows and the concept's own texts.

    Raises:
        DataError: as :func:`steering_core.probes.fit.calibrated`.
        ValueError: naming ``data``, if it lacks the direction.
    """
    if concept_direction == "probe":
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
    path: SteeringPath | WorkingSet | None = None,
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
    found_on = [oriented_logit(one, probe, data) for one in _directions(declared)]
    validation = residuals[(examples["split"] == "validation").to_numpy()].astype(np.float64)
    typical = [float(np.median(np.abs(validation @ w + b))) for w, b in found_on]
    model, *_ = [ModelUnits(logit, median_norm(data.residuals)) for logit in typical]
    if units == "model":  # so that the margin on every direction is as many of its typical logits
        found_on = [
            (w * typical[0] / size, b * typical[0] / size)
            for (w, b), size in zip(found_on, typical, strict=True)
        ]
    weights = np.stack([weight for weight, _ in found_on])
    metric, cost = _metric_and_cost(declared, data, decoder, fisher)
    inside = substitute(decoder, metric, cost)
    program: Sparse | None = None
    if declared.program != "dense":
        tilted = np.stack([inside.weight(weight) for weight in weights])
        program = sparse_program(inside, tilted, guards)
    logits = np.stack([residuals.astype(np.float64) @ w + b for w, b in found_on], axis=1)
    outside = fits_shared_vector(examples, data.target_class)
    if declared.mode == "shared" and not outside.any():
        raise ValueError("examples: no validation row is outside the target class")
    ids, guarding = examples["example_id"].tolist(), []
    frames, vectors, index = [], [], []
    unit = model.one("tau") * model.one("lam") if units == "model" else 1.0
    grid = program_grid(name, declared, program, unit)
    for point in (model.in_both(one, units) for one in grid):
        tau = float(point.tau)
        if declared.mode == "uniform":
            shortfall = np.full(logits.shape, tau)
        elif declared.mode == "shared":
            shortfall = np.tile(tau - logits[outside].min(axis=0), (len(logits), 1))
        else:
            shortfall = tau - logits
        held = free = None
        if program is None:
            columns, found, held = solve_dense(shortfall, weights, inside, guards)
            if held is not None:
                free = held.free_vector
        else:
            solved, which = solve_sparse(
                program, shortfall, qp_lambda=point.qp_lambda, epsilon=point.epsilon
            )
            columns, found = _columns(solved, which, shortfall, inside)
            if isinstance(solved, GuardedSolutions):
                held, free = solved, inside.vectors(solved.free.vector)
        if held is not None:
            guarding += guard_rows(point, ids, guards, columns["status"], held, found, free)
        frames.append(solution_rows(point, ids, **columns))
        once = declared.mode in ("uniform", "shared")
        start = sum(map(len, vectors))
        vectors.append(found[:1] if once else found)
        index.append(start + (np.zeros(len(found)) if once else np.arange(len(found))))
    return Solved(
        rows=with_split(frames, examples),
        vectors=np.concatenate(vectors),
        index=np.concatenate(index).astype(np.int64),
        weight=weights[0] if len(weights) == 1 else weights,
        bias=found_on[0][1] if len(weights) == 1 else np.array([bias for _, bias in found_on]),
        metric=metric,
        cost=cost,
        guards=guards,
        guard_rows=with_split(guarding, examples) if guarding else None,
    )


def _metric_and_cost(
    declared: "DeclaredProgram",
    data: FitData,
    decoder: Float[np.ndarray, "d_sae d_model"],
    fisher: Fisher | None,
) -> tuple[Float[np.ndarray, "d_model d_model"] | None, Float[np.ndarray, " d_sae"] | None]:
    """Return A² and the costs of the features; None where they are the plain ones."""
    if "fisher" in (declared.metric, declared.feature_cost) and fisher is None:
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


def _directions(declared: "DeclaredProgram") -> list[str]:
    given = declared.concept_direction
    return list(given) if isinstance(given, list) else [given]


def sparse_program(
    inside: Substitution, tilted: Float[np.ndarray, "k d_model"], guards: Guards | None
) -> Sparse:
    """Return what solves a sparse program: the path, the working set, or either with guards."""
    dictionary = Dictionary(inside.decoder)
    if guards is not None:
        return GuardedProgram(dictionary, tilted, guards.mapped(inside.weight))
    if len(tilted) > 1:
        return WorkingSet(dictionary, tilted)
    return SteeringPath.fit(dictionary, tilted[0])


def solve_sparse(
    program: Sparse,
    shortfall: Float[np.ndarray, "n k"],
    *,
    qp_lambda: float | None = None,
    epsilon: float | None = None,
) -> tuple[Solutions | GuardedSolutions | WorkingSetSolutions, Int[np.ndarray, " n"]]:
    """Return the solutions of a QP or an SOCP, and which of them each input has.

    A working set solves one input after the other, so inputs with the same margins are solved once.
    A program with guards does the same by itself.

    Args:
        program: of :func:`sparse_program`.
        shortfall: of each input and margin.
        qp_lambda: λ, for the QP.
        epsilon: ε, for the SOCP.
    """
    if isinstance(program, WorkingSet):
        asked, which = np.unique(shortfall, axis=0, return_inverse=True)
        which = which.reshape(len(shortfall))
    else:
        several = isinstance(program, GuardedProgram) and program.path is None
        asked = shortfall if several else shortfall[:, 0]
        which = np.arange(len(shortfall))
    if qp_lambda is not None:
        return program.qp(asked, qp_lambda=qp_lambda), which
    return program.socp(asked, epsilon=epsilon), which


def _columns(
    solved: Solutions | GuardedSolutions | WorkingSetSolutions,
    which: Int[np.ndarray, " n"],
    shortfall: Float[np.ndarray, "n k"],
    inside: Substitution,
) -> tuple[dict[str, np.ndarray | float], Float[np.ndarray, "n d_model"]]:
    """Return the columns of a strength's rows, and the vector of each."""
    vectors = inside.vectors(solved.vector)
    l1 = solved.l1
    if inside.cost is not None:
        l1 = np.where(solved.solved, solved.delta @ (1.0 / inside.cost), np.nan)
    columns = {
        "status": solved.status,
        "position": solved.position if isinstance(solved, Solutions) else np.nan,
        "objective": solved.objective,
        "dual_objective": solved.dual_objective,
        "relative_gap": solved.relative_gap,
        "dual_violation": solved.dual_violation,
        "l0": np.where(solved.solved, solved.l0, np.nan),
        "l1": l1,
        "residual_norm": np.linalg.norm(vectors, axis=1),
    }
    rows = {
        name: values[which] if isinstance(values, np.ndarray) else values
        for name, values in columns.items()
    }
    return {**rows, "shortfall": shortfall.max(axis=1)}, vectors[which]


def solve_dense(
    shortfall: Float[np.ndarray, "n k"],
    weights: Float[np.ndarray, "k d_model"],
    inside: Substitution,
    guards: Guards | None = None,
) -> tuple[dict[str, np.ndarray | float], Float[np.ndarray, "n d_model"], DenseSolutions | None]:
    """Return the columns of the rows of the least vectors, the vectors, and what guards change.

    Args:
        shortfall: of each input and margin.
        weights: of the logits, a row per margin.
        inside: the metric.
        guards: of the residual; without them the last of the three is None.
    """
    largest, held = shortfall.max(axis=1), None
    if guards is not None:
        held = guarded_dense(weights, shortfall, guards, inside)
        vectors = held.vector
    elif len(weights) == 1:
        vectors = np.maximum(largest, 0.0)[:, None] * dense_optimum(weights[0], inside)[None]
    else:
        vectors = dense_optima(weights, shortfall, inside)
    status = np.where(largest > 0, "optimal", "already_satisfied").astype("<U17")
    status[np.isnan(vectors).any(axis=1)] = "infeasible"
    nothing = ("position", "objective", "dual_objective", "relative_gap", "dual_violation")
    columns = {
        "status": status,
        "shortfall": largest,
        **dict.fromkeys([*nothing, "l0", "l1"], np.nan),
        "residual_norm": np.linalg.norm(vectors, axis=1),
    }
    return columns, vectors, held
