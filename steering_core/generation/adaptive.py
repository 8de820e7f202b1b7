"""A new optimum at every token: the program is solved again inside the hook.

Between tokens only the shortfall ``r = τ − w·h − b`` changes, and the path holds the solution for
every r. So a new optimum is a dot product, an interpolation between two knots, and an add; no
second forward pass and no solver. With guards, a position whose solution on the path exceeds one is
looked up in a table of the guarded program instead.

:class:`MarginsSolver` solves the programs that no path holds, each residual by itself: those with
several margins, those with guards that are solved once a prompt, and the least vector without
features. The first two are solved by the working set, which starts from the columns of the residual
before. That is exact, and thousands of times slower than a lookup.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int

from steering_core.models.devices import float64_device
from steering_core.models.site import Site
from steering_core.optimize.guarded import GuardedProgram, guarded_dense
from steering_core.optimize.guarded_table import GuardedLookup
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.lookup import PathLookup
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, INFEASIBLE, OPTIMAL, SATISFIED, STATUSES
from steering_core.optimize.substitution import Substitution, dense_optima
from steering_core.optimize.working_set.bounds import Guards
from steering_core.optimize.working_set.solver import WorkingSet

log = logging.getLogger(__name__)

#: A path that proves too short is followed this much further than was asked for.
_MARGIN = 1.5


class AdaptiveSolver:
    """Solves the QP or SOCP for any residuals, on the model's device.

    Args:
        path: of the oriented probe; it must know its decoder, or be complete, to go further than
            it was fitted. Where it cannot be followed in float64, residuals are left alone.
        weight: w of the probe oriented to the target class.
        bias: its b.
        program: which program.
        site: where the residuals are; where it is centred, so are they before the dot product.
        device: of the model.
        inverse: A⁻¹ where the path is that of another metric: solutions are mapped back by it.
        guarded: the program with guards, on the same path; None without guards.

    """

    def __init__(
        self,
        path: SteeringPath,
        weight: Float[np.ndarray, " d_model"],
        bias: float,
        program: Literal["qp", "socp"],
        site: Site,
        device: torch.device,
        inverse: Float[np.ndarray, "d_model d_model"] | None = None,
        guarded: GuardedProgram | None = None,
    ):
        self.program = program
        self._path, self._bias = path, bias
        # w·(h − mean h) = (w − mean w)·h.
        weight = site.view(np.asarray(weight, dtype=np.float64))
        self._weight = torch.tensor(weight, dtype=torch.float32, device=device)
        self.device = float64_device(device)  # positions on the path are computed in float64
        self._inverse = None
        if inverse is not None:
            self._inverse = torch.tensor(inverse, dtype=torch.float64, device=self.device)
        self._guarded = None
        if guarded is not None and len(guarded.guards.finite):
            self._guarded = GuardedLookup(guarded, program, self.device)
        if path.feasible and path.knots.mu.size < 2:
            with _stuck_is_beyond():
                path.extend(np.nextafter(0.0, 1.0))
        self._renew()

    def _renew(self) -> None:
        self._lookup = PathLookup(self._path, self.device)
        self._needed = torch.zeros((), dtype=torch.float64, device=self.device)

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """Return what to add to each raw residual, and codes into ``optimize.solution.STATUSES``.

        Args:
            residual: the raw stream, any float type.
            tau: margin of each row, float64 on ``self.device``.
            parameter: λ or ε of each row, likewise.

        """
        # Do not use a matrix product: its last digits depend on the number of rows.
        logit = (residual.float() * self._weight).sum(dim=-1)
        shortfall = tau - (logit.to(self.device).double() + self._bias)
        if self.program == "qp":
            vectors, codes = self._lookup.qp(shortfall, parameter)
            needed = shortfall * parameter
        else:
            vectors, codes = self._lookup.socp(shortfall, parameter)
            needed = shortfall / parameter
        if len(needed):
            worst = torch.where(codes == BEYOND, needed, 0.0).max()
            self._needed = torch.maximum(self._needed, worst)  # read later: no wait for the device
        if self._guarded is not None:
            vectors, codes = self._guarded.replaced(vectors, codes, shortfall, parameter)
        if self._inverse is not None:
            vectors = vectors.double() @ self._inverse
        return vectors.to(residual.device, residual.dtype), codes

    def grow(self) -> bool:
        """Follow the path as far as the residuals since the last call would have needed.

        Returns:
            True if the path was too short and is longer now. Then some positions that have a
            solution were not steered. Where the path cannot be followed further in float64,
            positions beyond its end stay without one.

        Raises:
            PathRangeError: if the path has no decoder to go on with.

        """
        needed = float(self._needed)
        if not needed:
            return False
        before = len(self._path.knots.mu)  # with the ray
        with _stuck_is_beyond():
            self._follow(needed)
        self._renew()
        return len(self._path.knots.mu) > before

    def _follow(self, needed: float) -> None:
        if self.program == "qp":
            self._path.extend(_MARGIN * needed)
            return
        self._path.extend(norm=1.0 / needed)
        if not self._path.knots.complete:
            self._path.extend(_MARGIN * float(self._path.knots.s[-1]))


@contextmanager
def _stuck_is_beyond() -> Iterator[None]:
    """Log if the path inside the block cannot be followed further in float64; it ends there."""
    try:
        yield
    except DegeneratePathError as error:
        log.warning("residuals beyond the end of the path are not steered: %s", error)


class MarginsSolver:
    """A program with one or several margins, for residuals on the model's device.

    Args:
        solves: the QP or SOCP of the directions on the dictionary, in the metric of the program;
            None for ``dense``.
        weights: w_j of the logits, oriented to the target class; ``(d_model,)`` for one.
        biases: their b_j.
        program: which program.
        site: where the residuals are; where it is centred, so are they before the dot products.
        device: of the model.
        inside: what maps solutions back from the metric.
        guards: of the residual, for ``dense``; what solves the others has its own.
    """

    def __init__(
        self,
        solves: WorkingSet | GuardedProgram | None,
        weights: Float[np.ndarray, "*k d_model"],
        biases: float | Float[np.ndarray, " k"],
        program: Literal["qp", "socp", "dense"],
        site: Site,
        device: torch.device,
        inside: Substitution,
        guards: Guards | None = None,
    ):
        self.device = float64_device(device)
        self._solves, self._program, self._inside, self._guards = solves, program, inside, guards
        self._directions = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        raw = site.view(self._directions)  # w·(h − mean h) = (w − mean w)·h
        self._weights = torch.tensor(raw, dtype=torch.float32, device=device)
        like = {"dtype": torch.float64, "device": self.device}
        self._biases = torch.tensor(np.atleast_1d(biases), **like)
        self._named = False

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """As :meth:`AdaptiveSolver.solve`."""
        # Do not use a matrix product: its last digits depend on the number of rows.
        logits = (residual.float()[:, None] * self._weights).sum(dim=-1)
        shortfall = (tau[:, None] - (logits.to(self.device).double() + self._biases)).cpu().numpy()
        if self._solves is None:
            vectors = self._dense(shortfall)
            codes = np.where((shortfall > 0).any(axis=1), OPTIMAL, SATISFIED)
            codes[np.isnan(vectors).any(axis=1)] = INFEASIBLE
        else:
            guarded = self._solves if isinstance(self._solves, GuardedProgram) else None
            one = guarded is not None and guarded.path is not None
            # Several margins have no path that would be looked at first.
            solves = guarded.working_set if guarded is not None and not one else self._solves
            parameters = parameter.cpu().numpy()
            asked = shortfall[:, 0] if one else shortfall
            found = getattr(solves, self._program)(asked, parameters)
            vectors = self._inside.vectors(found.vector)
            codes = np.array([STATUSES.index(status) for status in found.status], dtype=np.int64)
            lost = np.flatnonzero(codes == INFEASIBLE)
            if guarded is not None and len(lost) and not self._named:
                self._name_guards(guarded, shortfall[lost[0]], float(parameters[lost[0]]))
        vectors = np.where(np.isin(codes, (OPTIMAL, SATISFIED))[:, None], vectors, 0.0)
        added = torch.from_numpy(vectors).to(residual.device, residual.dtype)
        return added, torch.from_numpy(codes.astype(np.int64)).to(self.device)

    def _name_guards(
        self, guarded: GuardedProgram, shortfall: Float[np.ndarray, " k"], parameter: float
    ) -> None:
        """Say once which guards leave a position without a solution."""
        self._named = True
        names = guarded.blocking(self._program, shortfall, parameter)
        if names:
            log.warning(
                "the guards (%s) leave no solution at a position. Such positions are not steered, "
                "and counted as unsolved.",
                ", ".join(names),
            )

    def _dense(self, shortfall: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n d_model"]:
        if self._guards is None:
            return dense_optima(self._directions, shortfall, self._inside)
        return guarded_dense(self._directions, shortfall, self._guards, self._inside).vector

    def grow(self) -> bool:
        """Return False: there is no table that could be too short."""
        return False


class TokenSolver(Protocol):
    """What solves a program at every steered position; :class:`AdaptiveSolver` for one margin."""

    device: torch.device

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """As :meth:`AdaptiveSolver.solve`."""

    def grow(self) -> bool:
        """As :meth:`AdaptiveSolver.grow`."""


@dataclass(frozen=True)
class RowPrograms:
    """A program for each of n rows, solved at every position that is steered.

    Attributes:
        solver: of the program.
        tau: margin of each row, logits.
        parameter: λ or ε of each row.

    """

    solver: TokenSolver
    tau: Float[np.ndarray, " n"]
    parameter: Float[np.ndarray, " n"]

    @classmethod
    def alike(cls, n: int, solver: TokenSolver, tau: float, parameter: float) -> "RowPrograms":
        """Return the same program for each of n rows."""
        return cls(solver, np.full(n, tau), np.full(n, parameter))

    def rows(self, chosen: Sequence[int]) -> "RowPrograms":
        """Return the programs of the rows ``chosen``."""
        return RowPrograms(self.solver, self.tau[chosen], self.parameter[chosen])

    def start(self) -> "AdaptiveSteering":
        """Return what steers the rows of one batch."""
        return AdaptiveSteering(self)


class AdaptiveSteering:
    """Adds to every steered position of a batch the optimum for the residual there."""

    def __init__(self, programs: RowPrograms):
        self._solver = programs.solver
        like = {"dtype": torch.float64, "device": programs.solver.device}
        self._tau = torch.as_tensor(programs.tau, **like)
        self._parameter = torch.as_tensor(programs.parameter, **like)
        self._unsolved: list[torch.Tensor] = []
        self._added: list[torch.Tensor] = []

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, each of a row of the batch, with its optimum added.

        A position without a certified solution is left alone and counted.
        """
        rows = rows.to(self._solver.device)
        vectors, codes = self._solver.solve(residual, self._tau[rows], self._parameter[rows])
        missing = (codes != OPTIMAL) & (codes != SATISFIED)
        for counts, which in ((self._unsolved, missing), (self._added, codes == OPTIMAL)):
            count = torch.zeros(len(self._tau), dtype=torch.long, device=which.device)
            counts.append(count.index_add_(0, rows, which.long()))
        return residual + vectors

    def unsolved(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Return how many steered positions of each row had no certified solution.

        Args:
            passes: forward passes that belong to each row.
        """
        return own_counts(self._unsolved, passes)

    def added(self, passes: Int[np.ndarray, " batch"]) -> Int[np.ndarray, " batch"]:
        """Return at how many positions of each row something was added.

        A program is gated by its margin: where the logit has it already, nothing is added.

        Args:
            passes: as of :meth:`unsolved`.
        """
        return own_counts(self._added, passes)

    def grow(self) -> bool:
        """Extend the path if it was too short; see :meth:`AdaptiveSolver.grow`."""
        return self._solver.grow()


def own_counts(
    counts: Sequence[torch.Tensor], passes: Int[np.ndarray, " batch"]
) -> Int[np.ndarray, " batch"]:
    """Return the sum of each row's counts over the forward passes that belong to it.

    After a row has ended, passes that only other rows of the batch need are not counted.

    Args:
        counts: of each pass, ``(batch,)``.
        passes: forward passes that belong to each row.
    """
    table = torch.stack([*counts]).cpu().numpy()
    own = np.arange(len(table))[:, None] < np.asarray(passes)[None]
    return np.where(own, table, 0).sum(axis=0)
