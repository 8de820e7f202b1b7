"""A declared program with what solves it, for any residuals.

:mod:`steering_core.methods.declared_programs` learns what its margins are on. Here it is solved:
on the path, by the working set, with guards, or without features.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float, Int

from steering_core.methods.programs import shortfalls
from steering_core.methods.solution_vectors import ProgramLogit
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
    substitute,
)
from steering_core.optimize.working_set.bounds import Guards
from steering_core.optimize.working_set.solver import WorkingSet, WorkingSetSolutions

#: What solves a sparse program.
Sparse = SteeringPath | GuardedProgram | WorkingSet


class Found(NamedTuple):
    """The solutions of a program at one strength.

    Attributes:
        columns: of the rows, a value for each input or one for all.
        vectors: of each input, ``(n, d_model)``; NaN where there is no solution.
        guarded: what guards changed; None without guards.
        free: the vectors without the guards; None without guards.
    """

    columns: dict[str, np.ndarray | float]
    vectors: Float[np.ndarray, "n d_model"]
    guarded: GuardedSolutions | DenseSolutions | None = None
    free: Float[np.ndarray, "n d_model"] | None = None


@dataclass(frozen=True, eq=False)
class ReadyProgram:
    """A declared program with what solves it for any residuals.

    Attributes:
        logit: what the margin is on, what is minimised, and which inputs share a solution.
        inside: the dictionary in the program's metric and at its costs.
        solves: the path, the working set, or either with guards; None for ``dense``.
    """

    logit: ProgramLogit
    inside: Substitution
    solves: Sparse | None

    @classmethod
    def of(cls, logit: ProgramLogit, decoder: Float[np.ndarray, "d_sae d_model"]) -> Self:
        """Return the program on a dictionary.

        Raises:
            ValueError: as :func:`steering_core.optimize.substitution.substitute`.
        """
        inside, solves = substitute(decoder, logit.metric, logit.cost), None
        if logit.program != "dense":
            tilted = np.stack([inside.weight(weight) for weight in logit.weights])
            solves = sparse_program(inside, tilted, logit.guards)
        return cls(logit, inside, solves)

    @property
    def path(self) -> SteeringPath | None:
        """The path that the program is looked up on; None where there is none."""
        path = self.solves.path if isinstance(self.solves, GuardedProgram) else self.solves
        return path if isinstance(path, SteeringPath) else None

    def logits(self, residuals: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n k"]:
        """Return the logit of each residual on each direction."""
        h, logit = residuals.astype(np.float64), self.logit
        pairs = zip(logit.weights, logit.biases, strict=True)
        return np.stack([h @ weight + bias for weight, bias in pairs], axis=1)

    def shortfalls(
        self,
        logits: Float[np.ndarray, "n k"],
        tau: float,
        shared_by: Float[np.ndarray, "m k"] | None = None,
    ) -> Float[np.ndarray, "n k"]:
        """Return what each input lacks of the margin, in logits.

        Args:
            logits: of the inputs.
            tau: the margin.
            shared_by: logits of the rows that a shared vector brings to the margin; a program of
                the mode ``shared`` needs them.

        Raises:
            ValueError: naming ``shared_by``, if it is needed and not given.
        """
        if self.logit.mode == "uniform":
            return np.full(logits.shape, tau)
        if self.logit.mode != "shared":
            return shortfalls(logits, tau)
        return shortfalls(logits, tau, logits[:0] if shared_by is None else shared_by)

    def solve(
        self,
        shortfall: Float[np.ndarray, "n k"],
        *,
        qp_lambda: float | None = None,
        epsilon: float | None = None,
    ) -> Found:
        """Solve for every input, at λ for a QP or ε for an SOCP."""
        if self.solves is None:
            columns, vectors, held = solve_dense(
                shortfall, self.logit.weights, self.inside, self.logit.guards
            )
            return Found(columns, vectors, held, None if held is None else held.free_vector)
        solved, which = solve_sparse(self.solves, shortfall, qp_lambda=qp_lambda, epsilon=epsilon)
        columns, vectors = _columns(solved, which, shortfall, self.inside)
        if isinstance(solved, GuardedSolutions):
            return Found(columns, vectors, solved, self.inside.vectors(solved.free.vector))
        return Found(columns, vectors)


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
