"""The convex programs on the features that CorrSteer selected, and when they are solved."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from steering_core.config.methods import Program, mode_of, program_of
from steering_core.corrsteer.bridge_learned import Added, Learned, Residuals, Strength
from steering_core.corrsteer.capture import Over
from steering_core.errors import DataError
from steering_core.generation.adaptive import (
    AdaptiveSolver,
    AdaptiveSteering,
    steer_generation_adaptively,
)
from steering_core.generation.generate import end_tokens
from steering_core.methods.programs import ConvexOptimalSteering, OptimalSteering, QPOptimalSteering
from steering_core.methods.solutions import SOLVED
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.path import SteeringPath
from steering_core.probes.fit import fit_probe

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Bridge


@dataclass(frozen=True)
class Everywhere:
    """A program that is solved anew at every position steered.

    Attributes:
        path: of the probe of success, complete.
        weight, bias: of the probe.
        program: which program.
        tau: margin, logits.
        parameter: λ or ε.
    """

    path: SteeringPath
    weight: Float[np.ndarray, " d_model"]
    bias: float
    program: Program
    tau: float
    parameter: float

    @contextmanager
    def steer(
        self,
        lm: LanguageModel,
        site: Site,
        batch: TokenBatch,
        chosen: list[int],
        unsolved: Int[np.ndarray, " n"],
    ) -> Iterator[None]:
        """Steer ``generate`` inside the block.

        Positions without a solution are left alone; ``unsolved`` is set, for the ``chosen`` rows,
        to how many there were before the answer ended.
        """
        solver = AdaptiveSolver(self.path, self.weight, self.bias, self.program, site, lm.device)
        n = len(batch.ids)
        steering = AdaptiveSteering(solver, np.full(n, self.tau), np.full(n, self.parameter))
        over = Over(end_tokens(lm), batch)
        handle = lm.model.register_forward_pre_hook(over.before, with_kwargs=True)
        try:
            with steer_generation_adaptively(lm, site, steering, batch):
                yield
        finally:
            handle.remove()
        unsolved[chosen] = steering.unsolved(over.passes())


def program_strengths(method: str, bridge: "Bridge", learned: Learned) -> list[Strength]:
    """Return every strength of a program, the weakest first.

    A static program is solved for each row at its last prompt token, an adaptive one anew at
    every position, and a shared one once, for the validation row that is furthest from the
    margin; every row gets that vector.

    Raises:
        DataError: if the training rows do not tell success from failure, or the path of the
            programs cannot be followed.
    """
    probe = fit_probe(
        learned.residuals, learned.success, seed=learned.seed, centred=learned.centred
    )
    weight, bias = probe.weight_vector, probe.bias
    path = SteeringPath.fit(learned.dictionary.astype(np.float64), weight)
    note = "the probe of success is no better than chance" if probe.at_chance else ""
    mode, program = mode_of(method), program_of(method)
    if mode == "adaptive":
        try:
            path.extend(np.inf)  # what a token brings is not known before
        except DegeneratePathError as error:
            raise DataError(f"the path of the program ends: {error}") from error

    def solve(strength: OptimalSteering, parameter: float, residuals: Residuals) -> Added:
        shared_by = learned.shared_by if mode == "shared" else None
        found = strength.solve(path, strength.shortfalls(residuals, weight, bias, shared_by))
        solved = np.isin(found.status, SOLVED)  # not what missed its tolerance
        reason = ["" if ok else f"program: {s}" for ok, s in zip(solved, found.status, strict=True)]
        vectors = np.where(solved[:, None], found.vector, np.nan)
        everywhere = None
        if mode == "adaptive":
            everywhere = Everywhere(path, weight, bias, program, strength.tau, parameter)
        return Added(vectors, np.where(solved, found.l0, 0), reason, note, everywhere)

    return [
        Strength(f"tau {strength.tau:g}, {name} {parameter:g}", partial(solve, strength, parameter))
        for strength, name, parameter in _grid(program, bridge)
    ]


def _grid(program: Program, bridge: "Bridge") -> list[tuple[OptimalSteering, str, float]]:
    """Return every strength, the weakest first, with its second parameter and what that is."""
    if program == "qp":
        qp_lambda = bridge.weight
        return [(QPOptimalSteering(qp_lambda, tau), "lambda", qp_lambda) for tau in bridge.tau]
    return [
        (ConvexOptimalSteering(epsilon, tau), "epsilon", epsilon)
        for epsilon, tau in product(bridge.epsilon, bridge.tau)
    ]
