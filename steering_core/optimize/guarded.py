"""One program with guards: the path where its solution holds them, the working set elsewhere.

``min 1ᵀδ + (λ/2)‖Dᵀδ‖²`` or ``min 1ᵀδ s.t. ‖Dᵀδ‖ ≤ ε``, subject to ``aᵀδ ≥ r``, ``δ ≥ 0`` and
``|g_j·Dᵀδ| ≤ κ_j``. Without the guards it is a relaxation, so a solution of the path that holds
them is the optimum, with the path's certificate.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse

from steering_core.optimize.checks import as_vector, match, positive
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Program, Solutions
from steering_core.optimize.working_set.guards import Guards, irreducible
from steering_core.optimize.working_set.inner import ConeSolver
from steering_core.optimize.working_set.solver import WorkingSet, WorkingSetSolutions

_HOLDS = 1e-9  # a guard exceeded by less, relative to κ and to the vector, is held
_SHARED = ("objective", "dual_objective", "relative_gap", "dual_violation", "l1", "residual_norm")


class GuardedSolutions:
    """Solutions of n inputs, with the attributes of :class:`Solutions` but ``position``.

    Attributes:
        free: the solutions without guards.
        shortfall: r, ``(n,)``.
        parameter: λ or ε, ``(n,)``.
        status: of each input, as text.
        delta: δ, ``(n, d_sae)`` CSR.
        vector: ``Dᵀδ``; NaN without a solution, ``(n, d_model)``.
        l0: coefficients that are not zero, -1 without a solution.
        on_path: mask of the inputs whose unguarded solution holds the guards.
        blocked_by: of an infeasible input, the guards that make it so (none of them can be left
            out at the smallest infeasible shortfall); empty if it is infeasible without guards.
        guard_prices: by how much the objective falls with each κ, ``(n, m)``; 0 where the path's
            solution holds the guards, NaN without a solution.
    """

    def __init__(
        self,
        guards: Guards,
        free: Solutions,
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
        up, down = np.split(found.prices[:, 1:], 2, axis=1)
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
    """The QP and the SOCP of one margin with guards.

    Args:
        decoder: ``(d_sae, d_model)``; or a ``Dictionary``.
        probe_weight: ``(d_model,)``, oriented to the target class.
        guards: the guards.
        path: of the probe on the dictionary, if there is one already.
        cone_solver: as of :class:`WorkingSet`.
        device: where products with the whole dictionary run.

    Raises:
        ValueError: naming the argument.
    """

    def __init__(
        self,
        decoder: Any,
        probe_weight: Any,
        guards: Guards,
        *,
        path: SteeringPath | None = None,
        cone_solver: ConeSolver = "clarabel",
        device: str | torch.device = "cpu",
    ) -> None:
        dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
        self.path = path or SteeringPath.fit(dictionary, probe_weight)
        self.guards, self._dictionary, self._cone_solver = guards, dictionary, cone_solver
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
        """Solve the QP for each input; arguments as of :meth:`SteeringPath.qp`."""
        return self._solve("qp", shortfall, positive("qp_lambda", qp_lambda), tolerance)

    def socp(self, shortfall: Any, epsilon: Any, tolerance: float = 1e-8) -> GuardedSolutions:
        """Solve the SOCP for each input; arguments as of :meth:`SteeringPath.socp`."""
        return self._solve("socp", shortfall, positive("epsilon", epsilon, zero=True), tolerance)

    def _with(self, guards: Guards) -> WorkingSet:
        return WorkingSet(
            self._dictionary, self.path.weight, cone_solver=self._cone_solver, guards=guards
        )

    def _solve(
        self,
        program: Program,
        shortfall: Any,
        parameter: Float[np.ndarray, " m"],
        tolerance: float,
    ) -> GuardedSolutions:
        free = getattr(self.path, program)(as_vector("shortfall", shortfall), parameter, tolerance)
        shortfall, parameter = free.shortfall, match("parameter", parameter, len(free))
        vectors = free.vector
        moved = np.linalg.norm(vectors, axis=1)[:, None]
        size = self.guards.kappa + moved * np.linalg.norm(self.guards.directions, axis=1)
        size = np.where(np.isfinite(size), size, 0.0)
        on_path = ~free.solved | (self.guards.over(vectors) <= _HOLDS * size).all(axis=1)
        rest = np.flatnonzero(~on_path)
        # Each distinct program once, and near shortfalls one after the other, to start warm.
        pairs = np.stack([parameter[rest], shortfall[rest]], axis=1)
        pairs, which = np.unique(pairs, axis=0, return_inverse=True)
        which = which.reshape(rest.size)
        found = getattr(self.working_set, program)(pairs[:, 1], pairs[:, 0], tolerance=tolerance)
        names = self._blocking_each(program, pairs, found.status == "infeasible")
        blocked: list[tuple[str, ...]] = [()] * len(free)
        for i, pair in zip(rest, which, strict=True):
            blocked[i] = names[pair]
        return GuardedSolutions(self.guards, free, on_path, found.rows(which), blocked)

    def _blocking_each(
        self,
        program: Program,
        pairs: Float[np.ndarray, "p 2"],
        infeasible: Bool[np.ndarray, " p"],
    ) -> list[tuple[str, ...]]:
        """The guards that make each sorted (parameter, shortfall) infeasible; none if feasible."""
        known: dict[float, tuple[str, ...]] = {}
        names = []
        for (parameter, shortfall), blocked in zip(pairs, infeasible, strict=True):
            if blocked and parameter not in known:  # what is infeasible at r is so at larger ones
                known[parameter] = self._blocking(program, float(shortfall), float(parameter))
            names.append(known[parameter] if blocked else ())
        return names

    def _blocking(self, program: Program, shortfall: float, parameter: float) -> tuple[str, ...]:
        def feasible(guards: Guards) -> bool:
            found = getattr(self._with(guards), program)([shortfall], parameter)
            return str(found.status[0]) != "infeasible"

        return irreducible(self.guards.finite, feasible)
