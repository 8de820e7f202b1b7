"""Programs whose solutions no path holds, solved for each residual by itself.

These are programs with several margins, those with guards that are solved once a prompt, and the
least vector without features. The first two are solved by the working set, which starts from the
columns of the residual before. That is exact, and thousands of times slower than a lookup.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from steering_core.models.devices import float64_device
from steering_core.models.site import Site
from steering_core.optimize.guarded import GuardedProgram, guarded_dense
from steering_core.optimize.solution import INFEASIBLE, OPTIMAL, SATISFIED, STATUSES
from steering_core.optimize.substitution import Substitution, dense_optima
from steering_core.optimize.working_set.guards import Guards
from steering_core.optimize.working_set.solver import WorkingSet


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

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """As :meth:`steering_core.generation.adaptive.AdaptiveSolver.solve`."""
        # Not a matrix product: that one depends, in its last digits, on how many rows there are.
        logits = (residual.float()[:, None] * self._weights).sum(dim=-1)
        shortfall = (tau[:, None] - (logits.to(self.device).double() + self._biases)).cpu().numpy()
        if self._solves is None:
            vectors = self._dense(shortfall)
            codes = np.where((shortfall > 0).any(axis=1), OPTIMAL, SATISFIED)
            codes[np.isnan(vectors).any(axis=1)] = INFEASIBLE
        else:
            solve = self._solves.qp if self._program == "qp" else self._solves.socp
            one = isinstance(self._solves, GuardedProgram) and self._solves.path is not None
            asked = shortfall[:, 0] if one else shortfall
            found = solve(asked, parameter.cpu().numpy())
            vectors = self._inside.vectors(found.vector)
            codes = np.array([STATUSES.index(status) for status in found.status], dtype=np.int64)
        vectors = np.where(np.isin(codes, (OPTIMAL, SATISFIED))[:, None], vectors, 0.0)
        added = torch.from_numpy(vectors).to(residual.device, residual.dtype)
        return added, torch.from_numpy(codes.astype(np.int64)).to(self.device)

    def _dense(self, shortfall: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n d_model"]:
        if self._guards is None:
            return dense_optima(self._directions, shortfall, self._inside)
        return guarded_dense(self._directions, shortfall, self._guards, self._inside).vector

    def grow(self) -> bool:
        """Return False: there is no table that could be too short."""
        return False
