"""A guarded program as a table in the shortfall, so that a position of a text costs a lookup.

The bounds κ do not scale with the shortfall r, so one path does not serve all λ or ε. But for one λ
or ε the optimum still depends on r alone. With solutions and multipliers at two shortfalls, every
shortfall between them has a certified one: constraints are convex in (δ, r), so the point between
two solutions is feasible, and the multipliers between are feasible for the dual. The gap of the
two is zero where no knot lies between, and falls with the square of the distance otherwise. So the
table is refined until the gap is small enough everywhere.
"""

import heapq
import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steering_core.optimize.guarded import GuardedProgram
from steering_core.optimize.solution import INACCURATE, INFEASIBLE, OPTIMAL, SATISFIED, Program

log = logging.getLogger(__name__)

#: Relative gap up to which a solution between two nodes counts as optimal.
TOLERANCE = 1e-5

_FIRST = 1e-9  # the first node after zero, relative to the range
_EDGE = 1e-7  # relative width of the range between feasible and infeasible shortfalls
_AIM = 0.25  # the gap that refinement aims at, relative to the tolerance
_HELD = 1e-6  # a guard exceeded by less, relative to κ and to the float32 vector, is satisfied
_AHEAD = 1.25  # a table that is too short is extended this much further than was asked for
_CHECKED = (0.25, 0.5, 0.75)  # parts of a segment where its gap is looked at
_NODES = 500  # of one extension at most; what stays too coarse is reported as inaccurate


@dataclass(frozen=True, eq=False)
class _Node:
    """The solution at one shortfall, and multipliers that are feasible for the dual.

    ``fixed`` is the part of the dual value that does not depend on r: ``−κᵀρ``.
    """

    r: float
    l1: float
    v: Float[np.ndarray, " d_model"]
    mu: float
    fixed: float
    nu: Float[np.ndarray, " d_model"]


class GuardedTable:
    """Solutions of a guarded program with one λ or ε, for every shortfall asked for so far.

    Args:
        guarded: the program.
        program: which of the two.
        parameter: λ or ε.
        device: of the vectors.
        tolerance: on the relative gap.
    """

    def __init__(
        self,
        guarded: GuardedProgram,
        program: Program,
        parameter: float,
        device: str | torch.device = "cpu",
        tolerance: float = TOLERANCE,
    ) -> None:
        self._guarded, self.program, self.parameter = guarded, program, float(parameter)
        self._kappa, self._device, self._tolerance = guarded.guards.finite.kappa, device, tolerance
        self._nodes: list[_Node] = []
        self.solves = 0
        #: The smallest shortfall known to be infeasible.
        self.infeasible_from = np.inf
        #: The guards that make it so, once a shortfall without a solution was asked for.
        self.blocked_by: tuple[str, ...] = ()
        self._renew()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def reach(self) -> float:
        """The largest shortfall with a solution in the table."""
        return self._nodes[-1].r if self._nodes else 0.0

    def extend(self, r: float) -> "GuardedTable":
        """Go on to shortfall ``r``, or as far as there are solutions."""
        if r <= self.reach or self.reach >= self.infeasible_from * (1.0 - _EDGE):
            return self
        if not self._nodes and not self._begin(r):
            return self
        start = self._nodes[-1]
        end = self._at(r) if r < self.infeasible_from else None
        if end is None:
            end = self._last_before(start, min(r, self.infeasible_from))
        if end is not start:
            self._refine(end)
        self._renew()
        return self

    def _last_before(self, found: _Node, high: float) -> _Node:
        """Search between a node and a shortfall without a solution for the last one with one."""
        while high - found.r > _EDGE * high:
            middle = self._at(0.5 * (found.r + high))
            if middle is None:
                high = 0.5 * (found.r + high)
            else:
                found = middle
        return found

    def _begin(self, r: float) -> bool:
        """Make the nodes at zero and next to it; the program may be infeasible from the start."""
        first = self._at(_FIRST * r)
        if first is None:
            return False
        # At r = 0 the solution is 0, and ν = 0 is feasible once the others are shrunk a little.
        longest = float(self._guarded.longest_row)
        shrink = 1.0 + longest * float(np.linalg.norm(first.nu))
        zero = np.zeros_like(first.v)
        self._nodes = [_Node(0.0, 0.0, zero, first.mu / shrink, first.fixed / shrink, zero), first]
        return True

    def _at(self, r: float) -> _Node | None:
        """Solve at ``r``; None without a solution, and then remember if that is proved."""
        self.solves += 1
        solver = self._guarded.working_set
        found = getattr(solver, self.program)([r], self.parameter, tolerance=self._tolerance)
        if found.status[0] == "infeasible":
            self.infeasible_from = min(self.infeasible_from, r)
        if found.status[0] != "optimal":
            return None
        prices, v = found.prices[0], found.vector[0]
        up, down = np.split(prices[1:], 2)
        fixed = -float(self._kappa @ (up + down))
        nu = found.budget_price[0] * v
        return _Node(r, float(found.l1[0]), v, float(prices[0]), fixed, nu)

    def _refine(self, end: _Node) -> None:
        """Add nodes up to ``end`` until the gaps between neighbours are small, wide ones first."""
        queue = [(-(end.r - self._nodes[-1].r), self._nodes[-1].r, self._nodes[-1], end)]
        added = [end]
        while queue and len(added) < _NODES:
            _, _, left, right = heapq.heappop(queue)
            if self._gap(left, right) <= _AIM * self._tolerance:
                continue
            middle = self._at(0.5 * (left.r + right.r))
            if middle is not None:
                added.append(middle)
                for one, other in ((left, middle), (middle, right)):
                    heapq.heappush(queue, (one.r - other.r, one.r, one, other))
        self._nodes += sorted(added, key=lambda node: node.r)

    def _gap(self, left: _Node, right: _Node) -> float:
        """The largest relative gap at some points between two nodes."""
        table = _Table.of([left, right], "cpu")
        r = torch.tensor([left.r + part * (right.r - left.r) for part in _CHECKED])
        return float(table.answer(r.double(), self.program, self.parameter)[1].max())

    def _renew(self) -> None:
        self._table = _Table.of(self._nodes, self._device) if self._nodes else None

    def query(
        self, shortfall: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n d_model"], Int[Tensor, " n"]]:
        """Return vectors and codes of :data:`steering_core.optimize.solution.STATUSES`.

        The table is extended first if a shortfall lies beyond it. Vectors are zero unless the
        solution is certified.
        """
        worst = float(shortfall.max()) if len(shortfall) else 0.0
        if worst > 0:
            self.extend(worst if worst <= self.reach else _AHEAD * worst)
        shape = (len(shortfall), self._guarded.d_model)
        vectors = torch.zeros(shape, dtype=torch.float64, device=self._device)
        codes = torch.full((len(shortfall),), INFEASIBLE, device=self._device)
        if self._table is not None:
            found, gap = self._table.answer(shortfall, self.program, self.parameter)
            certified = (gap <= self._tolerance) & (shortfall <= self.reach)
            codes[certified] = OPTIMAL
            codes[~certified & (shortfall < self.infeasible_from)] = INACCURATE
            vectors = torch.where(certified[:, None], found, vectors)
        satisfied = shortfall <= 0
        codes[satisfied] = SATISFIED
        if worst >= self.infeasible_from and not self.blocked_by:
            self._name_guards()
        return torch.where(satisfied[:, None], 0.0, vectors), codes

    def _name_guards(self) -> None:
        """Find the guards that leave no solution beyond the reach of the table, and say so."""
        margin = np.array([self.infeasible_from])
        self.blocked_by = self._guarded.blocking(self.program, margin, self.parameter)
        if self.blocked_by:
            log.warning(
                "%s = %g: beyond a shortfall of %.4g the guards (%s) leave no solution. Such "
                "positions are not steered, and counted as unsolved.",
                "λ" if self.program == "qp" else "ε",
                *(self.parameter, self.infeasible_from, ", ".join(self.blocked_by)),
            )


class GuardedLookup:
    """Replaces solutions of the path that exceed a guard; one table for each λ or ε.

    Args:
        guarded: the program.
        program: which of the two.
        device: of shortfalls and vectors.
    """

    def __init__(
        self, guarded: GuardedProgram, program: Program, device: str | torch.device = "cpu"
    ) -> None:
        self._guarded, self._program, self._device = guarded, program, device
        guards = guarded.guards.finite
        like = {"dtype": torch.float64, "device": device}
        self._directions = torch.as_tensor(guards.directions.T.copy(), **like)
        self._kappa = torch.as_tensor(guards.kappa.copy(), **like)
        self._length = self._directions.norm(dim=0)
        self._tables: dict[float, GuardedTable] = {}

    def replaced(
        self,
        vectors: Float[Tensor, "n d_model"],
        codes: Int[Tensor, " n"],
        shortfall: Float[Tensor, " n"],
        parameter: Float[Tensor, " n"],
    ) -> tuple[Float[Tensor, "n d_model"], Int[Tensor, " n"]]:
        """Return vectors and codes with guarded solutions where the path's exceed a guard.

        Args:
            vectors: of the path.
            codes: of the path.
            shortfall: r of each row.
            parameter: λ or ε of each row.
        """
        vectors, codes = vectors.double(), codes.clone()
        room = _HELD * (self._kappa + vectors.norm(dim=1, keepdim=True) * self._length)
        over = ((vectors @ self._directions).abs() > self._kappa + room).any(dim=1)
        over &= codes == OPTIMAL
        for value in parameter[over].unique().tolist():
            if value not in self._tables:
                arguments = self._guarded, self._program, value, self._device
                self._tables[value] = GuardedTable(*arguments)
            here = over & (parameter == value)
            vectors[here], codes[here] = self._tables[value].query(shortfall[here])
        return vectors, codes


@dataclass(frozen=True, eq=False)
class _Table:
    """The nodes as tensors; ``cross`` and ``nu_cross`` are products of neighbours."""

    r: Tensor
    l1: Tensor
    mu: Tensor
    fixed: Tensor
    square: Tensor
    cross: Tensor
    nu_square: Tensor
    nu_cross: Tensor
    v: Tensor

    @classmethod
    def of(cls, nodes: list[_Node], device: str | torch.device) -> "_Table":
        v, nu = np.stack([node.v for node in nodes]), np.stack([node.nu for node in nodes])
        columns = [
            np.array([getattr(n, name) for n in nodes]) for name in ("r", "l1", "mu", "fixed")
        ]
        squares = [
            product
            for one in (v, nu)
            for product in ((one**2).sum(axis=1), (one[:-1] * one[1:]).sum(axis=1))
        ]
        arrays = [*columns, *squares, v]
        return cls(*(torch.as_tensor(array, dtype=torch.float64).to(device) for array in arrays))

    def answer(
        self, shortfall: Float[Tensor, " n"], program: Program, parameter: float
    ) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, " n"]]:
        """Vectors at shortfalls inside the table, and their relative gap."""
        k = torch.searchsorted(self.r, shortfall.contiguous()).clamp(1, len(self.r) - 1) - 1
        part = ((shortfall - self.r[k]) / (self.r[k + 1] - self.r[k])).clamp(0.0, 1.0)
        rest = 1.0 - part

        def between(values: Tensor) -> Tensor:
            return rest * values[k] + part * values[k + 1]

        def square(own: Tensor, cross: Tensor) -> Tensor:
            mixed = rest**2 * own[k] + 2 * rest * part * cross[k] + part**2 * own[k + 1]
            return mixed.clamp(min=0.0)

        value, spent = between(self.l1), square(self.nu_square, self.nu_cross)
        if program == "qp":
            value = value + 0.5 * parameter * square(self.square, self.cross)
            spent = spent / (2.0 * parameter)
        else:
            spent = parameter * spent.sqrt()
        bound = between(self.mu) * shortfall + between(self.fixed) - spent
        gap = torch.where(value > 0, (value - bound) / value, 0.0)
        vectors = rest[:, None] * self.v[k] + part[:, None] * self.v[k + 1]
        return vectors, gap.abs()
