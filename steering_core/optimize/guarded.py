"""A program with guards: the solution without guards if it satisfies them, else the working set's.

``min 1ᵀδ + (λ/2)‖Dᵀδ‖²`` or ``min 1ᵀδ s.t. ‖Dᵀδ‖ ≤ ε``, subject to ``(D w_j)ᵀδ ≥ r_j``, ``δ ≥ 0``
and ``|g_j·Dᵀδ| ≤ κ_j``. Without the guards it is a relaxation, so a solution that satisfies them is
the optimum, with its certificate. With one margin the path has that solution, with several the
working set. The dense program has no features: ``min ‖v‖²/2`` subject to ``w_jᵀv ≥ r_j`` and
``|g_j·v| ≤ κ_j``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse

from steering_core.optimize.checks import as_float64, as_numbers, as_vector, match, positive
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Program, Solutions
from steering_core.optimize.substitution import Substitution, dense_optima, dense_solutions
from steering_core.optimize.working_set.bounds import Guards, irreducible
from steering_core.optimize.working_set.inner import ConeSolver
from steering_core.optimize.working_set.solver import WorkingSet, WorkingSetSolutions

_HOLDS = 1e-9  # a guard exceeded by less, relative to κ and to the vector, is satisfied
_SHARED = ("objective", "dual_objective", "relative_gap", "dual_violation", "l1", "residual_norm")


class GuardedSolutions:
    """Solutions of n inputs, with the attributes of :class:`Solutions` but ``position``.

    Attributes:
        free: the solutions without guards.
        shortfall: r, ``(n,)``; of k margins, ``(n, k)``.
        parameter: λ or ε, ``(n,)``.
        status: of each input, as text.
        delta: δ, ``(n, d_sae)`` CSR.
        vector: ``Dᵀδ``; NaN without a solution, ``(n, d_model)``.
        l0: coefficients that are not zero, -1 without a solution.
        on_path: mask of the inputs whose unguarded solution satisfies the guards.
        blocked_by: of an infeasible input, the guards that make it so (none of them can be left
            out at that shortfall or at a smaller one); empty if it is infeasible without guards.
        guard_prices: by how much the objective falls with each κ, ``(n, m)``; 0 where the
            unguarded solution satisfies the guards, NaN without a solution.
    """

    def __init__(
        self,
        guards: Guards,
        free: Solutions | WorkingSetSolutions,
        on_path: Bool[np.ndarray, " n"],
        found: WorkingSetSolutions,
        blocked_by: list[tuple[str, ...]],
    ) -> None:
        self._guards, self.on_path, self.blocked_by = guards, on_path, blocked_by
        self.free, self.shortfall, self.parameter = free, free.shortfall, free.parameter
        for name in _SHARED:
            setattr(self, name, self._joined(getattr(free, name), getattr(found, name)))
        self.status: Shaped[np.ndarray, " n"] = self._joined(free.status, found.status)
        self.l0: Int[np.ndarray, " n"] = self._joined(free.l0, found.l0)
        self.vector: Float[np.ndarray, "n d_model"] = self._joined(free.vector, found.vector)
        self.guard_prices = np.where(self.solved, 0.0, np.nan)[:, None] * np.ones(len(guards))
        finite = np.isfinite(guards.kappa)
        margins = found.shortfall.shape[1]
        up, down = np.split(found.prices[:, margins:], 2, axis=1)
        self.guard_prices[np.ix_(~on_path, finite)] = up + down
        rows = sparse.vstack([free.delta[on_path], found.delta]).tocsr()
        order = np.argsort(np.concatenate([np.flatnonzero(on_path), np.flatnonzero(~on_path)]))
        self.delta = sparse.csr_array(rows[order])

    def __len__(self) -> int:
        return len(self.status)

    @property
    def solved(self) -> Bool[np.ndarray, " n"]:
        """Mask of the inputs that have a solution (a zero one included)."""
        return ~np.isnan(self.objective)

    @cached_property
    def shifts(self) -> Float[np.ndarray, "n m"]:
        """``g_j·Dᵀδ`` of each guard; NaN without a solution."""
        return self._guards.shifts(self.vector)

    def _joined(self, free: np.ndarray, found: np.ndarray) -> np.ndarray:
        kind = np.promote_types(free.dtype, found.dtype)
        out = np.array(free, dtype=kind)
        out[~self.on_path] = found
        return out


class GuardedProgram:
    """The QP and the SOCP with guards.

    Args:
        decoder: ``(d_sae, d_model)``; or a ``Dictionary``.
        weights: of one margin, ``(d_model,)``, or of k margins, ``(k, d_model)``, each oriented to
            its target.
        guards: the guards.
        path: of one margin on the dictionary, if there is one already.
        cone_solver: as of :class:`WorkingSet`.
        device: where products with the whole dictionary run.

    Raises:
        ValueError: naming the argument.
    """

    def __init__(
        self,
        decoder: Any,
        weights: Any,
        guards: Guards,
        *,
        path: SteeringPath | None = None,
        cone_solver: ConeSolver = "clarabel",
        device: str | torch.device = "cpu",
    ) -> None:
        dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
        self.guards, self._dictionary, self._cone_solver = guards, dictionary, cone_solver
        several = np.ndim(weights) > 1 and len(weights) > 1
        #: The path of one margin; None with several margins, which have no common path.
        self.path = None if several else path or SteeringPath.fit(dictionary, np.ravel(weights))
        self._weights = weights if self.path is None else self.path.weight
        self.working_set = self._with(guards)

    @property
    def longest_row(self) -> float:
        """Largest norm of a row of the decoder."""
        return float(self._dictionary.norms.max())

    @property
    def d_model(self) -> int:
        """Length of a residual vector."""
        return self._dictionary.d_model

    def qp(self, shortfall: Any, qp_lambda: Any, tolerance: float = 1e-8) -> GuardedSolutions:
        """Solve the QP; arguments as of :meth:`SteeringPath.qp` or :meth:`WorkingSet.qp`."""
        return self._solve("qp", shortfall, positive("qp_lambda", qp_lambda), tolerance)

    def socp(self, shortfall: Any, epsilon: Any, tolerance: float = 1e-8) -> GuardedSolutions:
        """Solve the SOCP; arguments as of :meth:`SteeringPath.socp` or :meth:`WorkingSet.socp`."""
        return self._solve("socp", shortfall, positive("epsilon", epsilon, zero=True), tolerance)

    def _with(self, guards: Guards | None) -> WorkingSet:
        return WorkingSet(
            self._dictionary, self._weights, cone_solver=self._cone_solver, guards=guards
        )

    def _solve(
        self,
        program: Program,
        shortfall: Any,
        parameter: Float[np.ndarray, " m"],
        tolerance: float,
    ) -> GuardedSolutions:
        if self.path is None:
            margins = as_float64("shortfall", as_numbers("shortfall", shortfall), 2)
        else:
            margins = as_vector("shortfall", shortfall)[:, None]
        parameter = match("parameter", parameter, len(margins))
        free = self._without_guards(program, margins, parameter, tolerance)
        vectors = free.vector
        moved = np.linalg.norm(vectors, axis=1)[:, None]
        size = self.guards.kappa + moved * np.linalg.norm(self.guards.directions, axis=1)
        size = np.where(np.isfinite(size), size, 0.0)
        on_path = ~free.solved | (self.guards.over(vectors) <= _HOLDS * size).all(axis=1)
        rest = np.flatnonzero(~on_path)
        pairs, which = _distinct(parameter[rest], margins[rest])
        found = getattr(self.working_set, program)(pairs[:, 1:], pairs[:, 0], tolerance=tolerance)
        names = self._blocking_each(program, pairs, found.status == "infeasible")
        blocked: list[tuple[str, ...]] = [()] * len(free)
        for i, pair in zip(rest, which, strict=True):
            blocked[i] = names[pair]
        return GuardedSolutions(self.guards, free, on_path, found.rows(which), blocked)

    def _without_guards(
        self,
        program: Program,
        margins: Float[np.ndarray, "n k"],
        parameter: Float[np.ndarray, " n"],
        tolerance: float,
    ) -> Solutions | WorkingSetSolutions:
        if self.path is not None:
            return getattr(self.path, program)(margins[:, 0], parameter, tolerance)
        pairs, which = _distinct(parameter, margins)
        free = getattr(self._with(None), program)(pairs[:, 1:], pairs[:, 0], tolerance=tolerance)
        return free.rows(which)

    def _blocking_each(
        self,
        program: Program,
        pairs: Float[np.ndarray, "p 1+k"],
        infeasible: Bool[np.ndarray, " p"],
    ) -> list[tuple[str, ...]]:
        """The guards that make each sorted (parameter, margins) infeasible; none if feasible."""
        known: list[tuple[Float[np.ndarray, " 1+k"], tuple[str, ...]]] = []
        names: list[tuple[str, ...]] = []
        for pair, blocked in zip(pairs, infeasible, strict=True):
            if not blocked:
                names.append(())
                continue
            # A program that is infeasible at some margins is infeasible at larger ones.
            found = (n for p, n in known if p[0] == pair[0] and (p[1:] <= pair[1:]).all())
            named = next(found, None)
            if named is None:
                named = self.blocking(program, pair[1:], float(pair[0]))
                known.append((pair, named))
            names.append(named)
        return names

    def blocking(
        self, program: Program, margins: Float[np.ndarray, " k"], parameter: float
    ) -> tuple[str, ...]:
        """Return the guards that make margins infeasible; none if they are so without guards.

        Args:
            program: which of the two.
            margins: that have no solution with all guards.
            parameter: λ or ε.
        """

        def feasible(guards: Guards) -> bool:
            found = getattr(self._with(guards), program)(margins[None], parameter)
            return str(found.status[0]) != "infeasible"

        return irreducible(self.guards.finite, feasible)


def _distinct(
    parameter: Float[np.ndarray, " n"], margins: Float[np.ndarray, "n k"]
) -> tuple[Float[np.ndarray, "p 1+k"], Int[np.ndarray, " n"]]:
    """Return each distinct (parameter, margins), sorted, so that solvers start warm, and which."""
    pairs = np.concatenate([parameter[:, None], margins], axis=1)
    pairs, which = np.unique(pairs, axis=0, return_inverse=True)
    return pairs, which.reshape(len(margins))


@dataclass(frozen=True, eq=False)
class DenseSolutions:
    """The least vectors without features, with and without guards, of n inputs.

    Attributes:
        vector: with guards, ``(n, d_model)``; NaN where margins and guards contradict each other.
        free_vector: without guards; NaN where the margins contradict each other.
        blocked_by: of an input without a solution, the guards that make it so, as of
            :class:`GuardedSolutions`.
        guard_prices: by how much ``‖A v‖²/2`` falls with each κ, ``(n, m)``; NaN without a
            solution.
    """

    vector: Float[np.ndarray, "n d_model"]
    free_vector: Float[np.ndarray, "n d_model"]
    blocked_by: list[tuple[str, ...]]
    guard_prices: Float[np.ndarray, "n m"]


def guarded_dense(
    weights: Float[np.ndarray, "k d_model"],
    shortfall: Float[np.ndarray, "n k"],
    guards: Guards,
    substitution: Substitution,
) -> DenseSolutions:
    """Return ``argmin ‖A v‖²  s.t. w_jᵀv ≥ r_j, |g_j·v| ≤ κ_j`` for each row of margins r.

    No vector holds margins and guards at a smaller ``‖A v‖``: it is the floor of every sparse
    program with these guards. Inputs with the same margins are solved once.

    Args:
        weights: of the margins.
        shortfall: r of each input; an input without one above 0 gets v = 0.
        guards: with directions as the residual has them, not in the metric.
        substitution: holds the metric A².
    """
    free = dense_optima(weights, shortfall, substitution)
    asked, which = np.unique(shortfall, axis=0, return_inverse=True)
    which = which.reshape(len(shortfall))
    found, prices = _dense_with(weights, asked, guards, substitution)
    names: list[tuple[str, ...]] = [()] * len(asked)
    for i in np.flatnonzero(np.isnan(found).any(axis=1)):

        def feasible(some: Guards, i: int = i) -> bool:
            return not np.isnan(_dense_with(weights, asked[[i]], some, substitution)[0]).any()

        names[i] = irreducible(guards.finite, feasible)
    blocked = [names[i] for i in which]
    return DenseSolutions(found[which], free, blocked, prices[which])


def _dense_with(
    weights: Float[np.ndarray, "k d_model"],
    shortfall: Float[np.ndarray, "n k"],
    guards: Guards,
    substitution: Substitution,
) -> tuple[Float[np.ndarray, "n d_model"], Float[np.ndarray, "n m"]]:
    """Return the vectors, and the price of each guard."""
    held = guards.finite
    rows = np.concatenate([weights, held.rows])
    right = np.concatenate([shortfall, np.tile(held.bounds, (len(shortfall), 1))], axis=1)
    found, multipliers = dense_solutions(rows, right, substitution)
    up, down = np.split(multipliers[:, len(weights) :], 2, axis=1)
    prices = np.where(np.isnan(found).any(axis=1), np.nan, 0.0)[:, None] * np.ones(len(guards))
    prices[:, np.isfinite(guards.kappa)] = up + down
    return found, prices
