"""The working-set solver, for programs with several margins or limits for each input.

Several margins, signed coefficients, caps and prefilters have the same structure: columns ``±d_i``
with caps. The solver solves a small program on few columns, computes the reduced costs of the full
dictionary from its multipliers, adds columns with negative ones, and repeats until none is left.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse

from steering_core.optimize.checks import (
    as_directions,
    as_float64,
    as_numbers,
    match,
    positive,
    tolerated,
)
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.solution import STATUSES
from steering_core.optimize.working_set.active_set import PerMargin
from steering_core.optimize.working_set.bounds import Guards, Limits
from steering_core.optimize.working_set.columns import WorkingColumns
from steering_core.optimize.working_set.inner import ConeSolver, WarmOSQP
from steering_core.optimize.working_set.input_programs import (
    ConeInputProgram,
    InputProgram,
    Outcome,
    QPInputProgram,
)

_PAYS = -1e-9  # a column whose reduced cost is below this enters
_COME_IN = 48  # columns added a round
_MOST = 640  # columns kept from one input to the next
_MISSED = 1e-9  # a larger relative miss: check whether there is a solution at all
_ROUNDS = 200

Caps = Float[np.ndarray, " columns"]


class WorkingSetSolutions:
    """Solutions of n inputs, with the attributes of :class:`Solutions`.

    Values of infeasible and failed inputs are NaN, their ``l0`` is -1, their rows of ``delta``
    empty.

    Attributes:
        shortfall: r, ``(n, k)``.
        parameter: λ or ε, ``(n,)``.
        delta: δ, ``(n, d_sae)`` CSR; negative entries are features turned down.
        prices: μ of the dual bound, feasible for the dual: of the k margins, then of the two sides
            of each finite guard, ``(n, k + 2m)``.
        budget_price: η of the dual bound, whose multiplier of the residual vector is ``η Dᵀδ``.
        iterations: of the inner solver, all rounds together.
        rounds: how often the reduced costs of the full dictionary were computed.
        inner: the inner solver whose point was used, e.g. ``"clarabel"`` if OSQP did not converge;
            empty if none was needed.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        shortfall: Float[np.ndarray, "n k"],
        parameter: Float[np.ndarray, " n"],
        outcomes: list[Outcome],
        gain: Float[np.ndarray, " rows"],
    ) -> None:
        self._dictionary, self._outcomes, self._gain = dictionary, outcomes, gain
        self.shortfall, self.parameter = shortfall, parameter
        empty = sparse.csr_array((0, dictionary.d_sae))
        self.delta = (
            sparse.csr_array(sparse.vstack([o.delta for o in outcomes])) if outcomes else empty
        )
        self.status = np.array([o.status for o in outcomes], dtype=f"<U{max(map(len, STATUSES))}")
        for name, source in (
            ("objective", "objective"),
            ("dual_objective", "dual_objective"),
            ("dual_violation", "violation"),
            ("residual_norm", "norm"),
        ):
            setattr(self, name, np.array([getattr(o, source) for o in outcomes], dtype=float))
        nothing = np.full(gain.size, np.nan)
        prices = [nothing if o.prices is None else o.prices / gain for o in outcomes]
        self.prices = np.array(prices).reshape(len(outcomes), gain.size)
        self.budget_price = np.array([o.budget_price for o in outcomes], dtype=float)
        self.iterations = np.array([o.iterations for o in outcomes], dtype=np.int64)
        self.rounds = np.array([o.rounds for o in outcomes], dtype=np.int64)
        self.inner = np.array([o.inner for o in outcomes], dtype="<U8")

    def __len__(self) -> int:
        return self.status.size

    def rows(self, index: Int[np.ndarray, " m"]) -> "WorkingSetSolutions":
        """The solutions of some inputs."""
        chosen = [self._outcomes[i] for i in index]
        arrays = self.shortfall[index], self.parameter[index]
        return WorkingSetSolutions(self._dictionary, *arrays, chosen, self._gain)

    @property
    def solved(self) -> Bool[np.ndarray, " n"]:
        """Mask of the inputs that have a solution (a zero one included)."""
        return ~np.isnan(self.objective)

    @property
    def relative_gap(self) -> Float[np.ndarray, " n"]:
        """``(objective − dual_objective) / objective``, 0 for δ = 0."""
        scale = np.where(self.objective == 0, 1.0, self.objective)
        return (self.objective - self.dual_objective) / scale

    @property
    def l1(self) -> Float[np.ndarray, " n"]:
        """``‖δ‖₁``."""
        return np.where(self.solved, abs(self.delta).sum(axis=1), np.nan)

    @property
    def l0(self) -> Int[np.ndarray, " n"]:
        """Number of coefficients that are not zero, -1 without a solution."""
        return np.where(self.solved, np.diff(self.delta.indptr), -1)

    @cached_property
    def vector(self) -> Float[np.ndarray, "n d_model"]:
        """``Dᵀδ``, float64; rows without a solution are NaN."""
        used = np.unique(self.delta.indices)
        out = self.delta[:, used] @ self._dictionary.rows(used)
        out[~self.solved] = np.nan
        return out


class WorkingSet:
    """Exact solutions for k margins and any limits, one input after the other.

    ``min ‖δ‖₁ + (λ/2)‖Dᵀδ‖²`` or ``min ‖δ‖₁ s.t. ‖Dᵀδ‖ ≤ ε``, subject to ``(D w_j)ᵀδ ≥ r_j``,
    j = 1..k, ``−down ≤ δ ≤ up`` (:class:`Limits`) and, with guards, ``|g_j·Dᵀδ| ≤ κ_j``. Columns,
    factorisation and last solution are kept from input to input and from call to call, so each
    input starts warm.

    Args:
        decoder: ``(d_sae, d_model)``, numpy or torch; or a ``Dictionary``.
        directions: ``(k, d_model)`` or ``(d_model,)``, each oriented to its target.
        cone_solver: inner solver of the SOCP, ``"clarabel"`` or ``"scs"``; the QP uses OSQP.
        warm: start OSQP from the last solution; False is for benchmarks.
        device: where products with the whole dictionary run.
        guards: how far the solutions may move the residual along other directions.

    Raises:
        ValueError: naming the argument.
    """

    def __init__(
        self,
        decoder: Any,
        directions: Any,
        *,
        cone_solver: ConeSolver = "clarabel",
        warm: bool = True,
        device: str | torch.device = "cpu",
        guards: Guards | None = None,
    ) -> None:
        if cone_solver not in ("clarabel", "scs"):
            raise ValueError(f"cone_solver must be 'clarabel' or 'scs', not {cone_solver!r}.")
        dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
        directions = as_directions(directions, dictionary.d_model)
        self._dictionary, self._cone_solver = dictionary, cone_solver
        self._k, self._bounds = len(directions), np.zeros(0)
        if guards is not None:
            guards = guards.finite
            if guards.directions.shape[1] != dictionary.d_model:
                raise ValueError(
                    f"guards must be (m, {dictionary.d_model}), not {guards.directions.shape}."
                )
            directions = np.concatenate([directions, guards.rows])
            self._bounds = guards.bounds
        # Scale so that each direction's best feature gains 1: solvers use absolute tolerances.
        gains = WorkingColumns(dictionary, directions).gains
        gain = np.where((gains > 0).any(axis=1), gains.max(axis=1), np.abs(gains).max(axis=1))
        self._gain = np.where(gain > 0, gain, 1.0)
        self._columns = WorkingColumns(dictionary, directions / self._gain[:, None])
        self._osqp = WarmOSQP(warm)

    def qp(
        self, shortfall: Any, qp_lambda: Any, limits: Limits | None = None, tolerance: float = 1e-5
    ) -> WorkingSetSolutions:
        """Solve the QP for each input.

        Args:
            shortfall: r, ``(n, k)``; ``(n,)`` with one direction. An input whose r are all <= 0
                gets δ = 0.
            qp_lambda: λ > 0, a number or ``(n,)``.
            limits: of the coefficients; default ``δ ≥ 0``.
            tolerance: a solution is ``"inaccurate"`` if its certified relative gap, or the
                relative miss of a constraint, is larger.

        Raises:
            ValueError: naming the argument.
        """

        def input_program(r: PerMargin, qp_lambda: float, caps: Caps) -> InputProgram:
            return QPInputProgram(self._columns, self._osqp, r, qp_lambda, caps)

        return self._each(
            shortfall,
            "qp_lambda",
            positive("qp_lambda", qp_lambda),
            limits,
            tolerance,
            input_program,
        )

    def socp(
        self, shortfall: Any, epsilon: Any, limits: Limits | None = None, tolerance: float = 1e-5
    ) -> WorkingSetSolutions:
        """Solve the SOCP for each input; ``epsilon`` >= 0, otherwise as :meth:`qp`."""

        def input_program(r: PerMargin, epsilon: float, caps: Caps) -> InputProgram:
            return ConeInputProgram(self._columns, self._cone_solver, r, epsilon, caps)

        epsilon = positive("epsilon", epsilon, zero=True)
        return self._each(shortfall, "epsilon", epsilon, limits, tolerance, input_program)

    def _each(
        self,
        shortfall: Any,
        name: str,
        parameter: Float[np.ndarray, " n"],
        limits: Limits | None,
        tolerance: float,
        make: Callable[[PerMargin, float, Caps], InputProgram],
    ) -> WorkingSetSolutions:
        d_sae = self._columns.d_sae
        shortfall, tolerance = _margins(shortfall, self._k), tolerated(tolerance)
        n = len(shortfall)
        limits = (limits or Limits()).checked(n, d_sae)
        parameter = match(name, parameter, n)
        outcomes = []
        for i in range(n):
            caps = np.concatenate(limits.row(i, d_sae))
            if (shortfall[i] <= 0).all():
                outcomes.append(Outcome.satisfied(d_sae))
            elif name == "epsilon" and parameter[i] == 0:
                outcomes.append(Outcome.without_solution("infeasible", d_sae))
            else:
                r = np.concatenate([shortfall[i], self._bounds]) / self._gain
                outcome = self._one(make(r, float(parameter[i]), caps))
                outcomes.append(outcome.judged(tolerance))
        return WorkingSetSolutions(self._dictionary, shortfall, parameter, outcomes, self._gain)

    def _one(self, input_program: InputProgram) -> Outcome:
        """Solve one input. If a factorisation breaks down, only this input has failed."""
        before = self._columns.ids.size
        try:
            return self._rounds(input_program)
        except np.linalg.LinAlgError:
            self._columns.keep_first(before)
            return Outcome.without_solution("failed", self._columns.d_sae)

    def _rounds(self, input_program: InputProgram) -> Outcome:
        """Solve and add the columns with negative reduced costs until there are none.

        Every outcome is certified on the full dictionary, so the best one is returned. That is the
        last one, unless a solver becomes less accurate near a limit of the program.
        """
        columns, iterations, best = self._columns, 0, None
        before = columns.ids.size
        status = "feasible" if before else input_program.repair()
        for count in range(1, _ROUNDS + 1):
            if status != "feasible":
                break
            found = input_program.solve()
            iterations += found.iterations
            if found.status != "solved":
                status = input_program.repair()
                continue
            point = input_program.finish(found)
            iterations += point.iterations
            costs = columns.reduced_costs(point.nu, point.mu)
            latest = input_program.outcome(point, costs)
            best = latest.by(point.solver).better(best)
            if columns.add(columns.promising(costs, input_program.caps, _PAYS, _COME_IN)):
                continue
            if latest.miss <= _MISSED:
                columns.keep_best(costs, point.x, _MOST)
                return best.counted(iterations, count)
            status = input_program.repair()  # the program may be infeasible
        return self._unsettled(before, status, best).counted(iterations, count)

    def _unsettled(self, before: int, status: str, best: Outcome | None) -> Outcome:
        """The outcome if no round was final; ``before`` is how many columns there were at first."""
        if self._columns.ids.size > _MOST:  # without multipliers, no new column is known as good
            self._columns.keep_first(before)
        if best is not None and status != "infeasible":
            return best
        status = "failed" if status == "feasible" else status
        return Outcome.without_solution(status, self._columns.d_sae)


def _margins(shortfall: Any, k: int) -> Float[np.ndarray, "n k"]:
    """Shortfalls as a matrix, possibly without rows."""
    shortfall = as_numbers("shortfall", shortfall)
    if shortfall.ndim > 0 and len(shortfall) == 0:
        return np.zeros((0, k))
    shortfall = as_float64("shortfall", shortfall, 1 if shortfall.ndim == 1 == k else 2)
    shortfall = shortfall[:, None] if shortfall.ndim == 1 else shortfall
    if shortfall.shape[1] != k:
        raise ValueError(f"shortfall must be (n, {k}), not {shortfall.shape}.")
    return shortfall
