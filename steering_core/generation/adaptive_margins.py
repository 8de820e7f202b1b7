"""A new optimum at every token with margins on several directions.

One path does not hold these solutions, so the working set solves each residual's program, starting
from the columns of the one before. That is exact, and thousands of times slower than a lookup: a
solve for every token of every text.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from steering_core.models.devices import float64_device
from steering_core.models.site import Site
from steering_core.optimize.solution import OPTIMAL, SATISFIED, STATUSES
from steering_core.optimize.working_set.solver import WorkingSet


class MarginsSolver:
    """QP or SOCP with several margins, for residuals on the model's device.

    Args:
        working_set: of the directions on the dictionary, in the metric of the program.
        weights: w_j of the logits, oriented to the target class.
        biases: their b_j.
        program: which program.
        site: where the residuals are; where it is centred, so are they before the dot products.
        device: of the model.
        inverse: A⁻¹ where the working set is in another metric: solutions are mapped back by it.
    """

    def __init__(
        self,
        working_set: WorkingSet,
        weights: Float[np.ndarray, "k d_model"],
        biases: Float[np.ndarray, " k"],
        program: Literal["qp", "socp"],
        site: Site,
        device: torch.device,
        inverse: Float[np.ndarray, "d_model d_model"] | None = None,
    ):
        self.device = float64_device(device)
        self._working_set, self._program, self._inverse = working_set, program, inverse
        weights = site.view(np.asarray(weights, dtype=np.float64))
        self._weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self._biases = torch.tensor(biases, dtype=torch.float64, device=self.device)

    def solve(
        self,
        residual: Float[torch.Tensor, "n d_model"],
        tau: Float[torch.Tensor, " n"],
        parameter: Float[torch.Tensor, " n"],
    ) -> tuple[Float[torch.Tensor, "n d_model"], Int[torch.Tensor, " n"]]:
        """As :meth:`steering_core.generation.adaptive.AdaptiveSolver.solve`."""
        logits = (residual.float()[:, None] * self._weights).sum(dim=-1)
        shortfall = tau[:, None] - (logits.to(self.device).double() + self._biases)
        solve = self._working_set.qp if self._program == "qp" else self._working_set.socp
        found = solve(shortfall.cpu().numpy(), parameter.cpu().numpy())
        codes = np.array([STATUSES.index(status) for status in found.status], dtype=np.int64)
        vectors = np.where(np.isin(codes, (OPTIMAL, SATISFIED))[:, None], found.vector, 0.0)
        if self._inverse is not None:
            vectors = vectors @ self._inverse
        added = torch.from_numpy(vectors).to(residual.device, residual.dtype)
        return added, torch.from_numpy(codes).to(self.device)

    def grow(self) -> bool:
        """There is no path that could be too short."""
        return False
