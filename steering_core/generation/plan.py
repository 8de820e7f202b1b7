"""Which adaptive program steers which text."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from steering_core.config.methods import is_adaptive, program_of
from steering_core.generation.adaptive import AdaptiveSolver, AdaptiveSteering
from steering_core.methods.interventions import Interventions
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_decoder

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdaptivePlan:
    """A program for each of n texts, to be solved wherever they are steered.

    Attributes:
        solver: of the program.
        tau: margin asked of each text, logits.
        parameter: λ or ε of each text.

    """

    solver: AdaptiveSolver
    tau: Float[np.ndarray, " n"]
    parameter: Float[np.ndarray, " n"]

    def until_in_range(
        self, chosen: list[int], run: Callable[[AdaptiveSteering], T]
    ) -> tuple[T, AdaptiveSteering]:
        """Call ``run`` with the steering of some texts, again if the path was too short for it.

        Returns:
            What ``run`` returned, and the steering that counted.

        """
        while True:
            steering = AdaptiveSteering(self.solver, self.tau[chosen], self.parameter[chosen])
            result = run(steering)
            if not self.solver.grow():
                return result, steering
            log.info("a residual lay beyond the path: it was followed further, and steers again")


def plan_for(
    solver: AdaptiveSolver | None, interventions: Interventions, rows: pd.DataFrame
) -> AdaptivePlan | None:
    """Return the plan of an adaptive method's rows; None for any other method.

    Raises:
        ValueError: naming ``solver``, if an adaptive method comes without one.

    """
    if not is_adaptive(interventions.method):
        return None
    if solver is None:
        raise ValueError(f"solver: {interventions.method} is solved again at every position")
    return AdaptivePlan(solver, rows["tau"].to_numpy(dtype=float), interventions.parameters(rows))


def load_solver(
    method: str,
    path: str | Path | None,
    probe: str | Path | None,
    target_class: Literal[0, 1],
    decoder: str | Path | None,
    site: Site,
    device: torch.device,
) -> AdaptiveSolver | None:
    """Read what an adaptive method solves with from the files of earlier stages; None for others.

    The decoder comes along so that a path that was not followed to its end can be, to residuals
    that no example has.

    Raises:
        ValueError: if an adaptive method comes without one of its files.
    """
    if not is_adaptive(method):
        return None
    if path is None or probe is None or decoder is None:
        raise ValueError(f"{method} needs the files of path, probe and decoder")
    oriented = LinearProbe.load(probe).oriented(target_class)
    return AdaptiveSolver(
        SteeringPath.load(path, load_decoder(decoder)),
        oriented.weight_vector,
        oriented.bias,
        program_of(method),
        site,
        device,
    )
