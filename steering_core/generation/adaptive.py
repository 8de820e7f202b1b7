"""A new optimum at every token: the program is solved again inside the hook.

Between tokens only the shortfall ``r = τ − w·h − b`` changes, and the path holds the solution for
every r. So a new optimum is a dot product, an interpolation between two knots, and an add; no
second forward pass and no solver.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.generation.steering import (
    Positions,
    edit_generation,
    nan_if_too_long,
    steered_positions,
)
from steering_core.models.devices import float64_device
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import Edit, edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.lookup import PathLookup
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, OPTIMAL, SATISFIED

log = logging.getLogger(__name__)

#: A path that proves too short is followed this much further than was asked for.
_MARGIN = 1.5


class AdaptiveSolver:
    """QP or SOCP for residuals on the model's device, whatever they are.

    Args:
        path: of the oriented probe; it must know its decoder, or be complete, to go further than
            it was fitted. Where it cannot be followed in float64, residuals are left alone.
        weight: w of the probe oriented to the target class.
        bias: its b.
        program: which program.
        site: where the residuals are; where it is centred, so are they before the dot product.
        device: of the model.

    """

    def __init__(
        self,
        path: SteeringPath,
        weight: Float[np.ndarray, " d_model"],
        bias: float,
        program: Literal["qp", "socp"],
        site: Site,
        device: torch.device,
    ):
        self.program = program
        self._path, self._bias = path, bias
        # w·(h − mean h) = (w − mean w)·h.
        weight = site.view(np.asarray(weight, dtype=np.float64))
        self._weight = torch.tensor(weight, dtype=torch.float32, device=device)
        self.device = float64_device(device)  # positions on the path are computed in float64
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
        # Not a matrix product: that one depends, in its last digits, on how many rows there are.
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
        return vectors.to(residual.device, residual.dtype), codes

    def grow(self) -> bool:
        """Follow the path as far as the residuals since the last call would have needed.

        Returns:
            Whether it was too short and is longer now: then positions were left alone that have a
            solution. Where the path cannot be followed further in float64, positions beyond its
            end stay without one.

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
    """Where the path inside cannot be followed in float64, it ends; that is logged."""
    try:
        yield
    except DegeneratePathError as error:
        log.warning("residuals beyond the end of the path are not steered: %s", error)


class AdaptiveSteering:
    """Adds to every steered position the optimum for the residual there.

    Args:
        solver: of the program.
        tau: margin asked of each row of the batch, logits.
        parameter: λ or ε of each row.

    """

    def __init__(
        self,
        solver: AdaptiveSolver,
        tau: Float[np.ndarray, " batch"],
        parameter: Float[np.ndarray, " batch"],
    ):
        self._solver = solver
        self._tau = torch.as_tensor(tau, dtype=torch.float64, device=solver.device)
        self._parameter = torch.as_tensor(parameter, dtype=torch.float64, device=solver.device)
        self._unsolved: list[torch.Tensor] = []

    def at(
        self, rows: Int[torch.Tensor, " n"], residual: Float[torch.Tensor, "n d_model"]
    ) -> Float[torch.Tensor, "n d_model"]:
        """Return the residuals, each of a row of the batch, with its optimum added.

        A position without a certified solution is left alone and counted.
        """
        rows = rows.to(self._solver.device)
        vectors, codes = self._solver.solve(residual, self._tau[rows], self._parameter[rows])
        missing = ((codes != OPTIMAL) & (codes != SATISFIED)).long()
        count = torch.zeros(len(self._tau), dtype=torch.long, device=missing.device)
        self._unsolved.append(count.index_add_(0, rows, missing))
        return nan_if_too_long(residual + vectors)

    def unsolved(
        self, passes: Int[np.ndarray, " batch"] | None = None
    ) -> Int[np.ndarray, " batch"]:
        """Return how many steered positions of each row had no certified solution.

        Args:
            passes: forward passes that belong to each row; what a batch does to a finished row
                while others go on is not counted.

        """
        counts = torch.stack(self._unsolved).cpu().numpy()
        if passes is None:
            return counts.sum(axis=0)
        mine = np.arange(len(counts))[:, None] < np.asarray(passes)[None]
        return np.where(mine, counts, 0).sum(axis=0)


@contextmanager
def steer_generation_adaptively(
    lm: LanguageModel,
    site: Site,
    steering: AdaptiveSteering,
    prompt: TokenBatch,
    positions: Positions = "last",
) -> Iterator[None]:
    """Steer ``generate`` inside the block as :func:`steer_generation` does, solving every time."""
    rows = torch.arange(len(prompt.ids), device=lm.device)
    with edit_generation(
        lm,
        site,
        _at_positions(steering, steered_positions(prompt, positions).to(lm.device)),
        lambda residual: steering.at(rows, residual[:, 0])[:, None],
    ):
        yield


@contextmanager
def steer_positions_adaptively(
    lm: LanguageModel,
    site: Site,
    steering: AdaptiveSteering,
    where: Bool[torch.Tensor, "batch seq"],
) -> Iterator[None]:
    """Steer one forward pass inside the block at exactly the positions ``where``.

    Positions do not see each other's vectors at their own site, so one pass over a whole text adds
    to each position what generation added there.
    """
    with edit_residual(lm, site, _at_positions(steering, where.to(lm.device))):
        yield


def _at_positions(steering: AdaptiveSteering, where: Bool[torch.Tensor, "batch seq"]) -> Edit:
    row, column = where.nonzero(as_tuple=True)

    def edit(residual: torch.Tensor) -> torch.Tensor:
        steered = residual.clone()
        steered[row, column] = steering.at(row, residual[row, column])
        return steered

    return edit
