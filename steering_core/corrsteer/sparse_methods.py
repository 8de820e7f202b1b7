"""The methods of optimal sparse steering, learned from the training rows of a CorrSteer task.

The programs move a probe of success, or another direction, past a margin with the features that
CorrSteer selected; the fixed directions are those of the main pipeline, with success in place of
the label. Every strength of a method gives an intervention on rows whose residuals are known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float

from steering_core.config.methods import BASELINE, Program, is_program, mode_of, program_of
from steering_core.errors import DataError
from steering_core.generation.adaptive import AdaptivePlan, AdaptiveSolver
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.generation.new_inputs import Residuals, SteeredInputs, Strength
from steering_core.methods.base import Direction
from steering_core.methods.directions import (
    DIRECTIONS,
    FOUND_BY,
    CAAContrastive,
    CAAMeanDiff,
    CAARepE,
    FitData,
    FixedDirection,
    make_direction,
)
from steering_core.methods.programs import ConvexOptimalSteering, OptimalSteering, QPOptimalSteering
from steering_core.methods.solutions import SOLVED
from steering_core.models.site import Site
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.path import SteeringPath
from steering_core.probes.calibration import calibrated
from steering_core.probes.fit import fit_probe

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import SparseMethods

#: Residuals of texts that should differ in success: of those that succeed, and of those that fail.
Pairs = tuple[Residuals, Residuals]


@dataclass(frozen=True)
class TrainingData:
    """What the methods learn from, at one site.

    Attributes:
        site: where the residuals are, and where the methods steer.
        residuals: of the training prompts, at their last token.
        success: whether the unsteered model succeeded on them.
        dictionary: unit decoder rows of the selected features.
        correlation: of each of these features with success.
        contrast: returns residuals of prompts with right and with wrong answers.
        personas: returns residuals of prompts after the instruction to succeed, and to fail.
        shared_by: residuals of the validation prompts at their last token. A shared vector is
            solved for the one that is furthest from the margin.
        seed: of the probe's folds and the random direction.
        device: of the model.
    """

    site: Site
    residuals: Residuals
    success: Bool[np.ndarray, " n"]
    dictionary: Float[np.ndarray, "m d_model"]
    correlation: Float[np.ndarray, " m"]
    contrast: Callable[[], Pairs]
    personas: Callable[[], Pairs]
    shared_by: Residuals
    seed: int
    device: torch.device


def strengths(method: str, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    """Return every strength of a method, the weakest first.

    Raises:
        DataError: if the training rows lack what the method learns from, such as both outcomes.
        ValueError: naming ``method``, if there is none of that name.
    """
    if method in DIRECTIONS and method != BASELINE:
        return _fixed(make_direction(method, settings.topk), settings, data)
    if is_program(method):
        return _programs(method, settings, data)
    raise ValueError(f"method: there is no {method!r} among the sparse methods")


def _fixed(method: FixedDirection, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    direction, unit = _found(method, data)
    used = None if direction.features is None else len(direction.features)

    def steer(strength: float, residuals: Residuals) -> SteeredInputs:
        n = len(residuals)
        vector = strength * unit * direction.vector
        features = None if used is None else np.full(n, used)
        return SteeredInputs(Intervention({data.site: RowVectors(vector)}), features, [""] * n)

    return [Strength(f"alpha {alpha:g}", partial(steer, alpha)) for alpha in settings.strengths]


def _found(method: FixedDirection, data: TrainingData) -> tuple[Direction, float]:
    """Return the direction of a method, and the mean norm of the training residuals.

    Raises:
        DataError: if the training rows lack what the method learns from.
    """
    nothing = np.zeros((0, data.residuals.shape[1]))
    contrast = data.contrast() if isinstance(method, CAAContrastive) else (nothing, nothing)
    personas = data.personas() if isinstance(method, CAARepE) else (nothing, nothing)
    if isinstance(method, CAAContrastive) and not len(contrast[0]):
        raise DataError("there is no wrong answer to make a pair with")
    if isinstance(method, CAAMeanDiff) and data.success.all() == data.success.any():
        raise DataError("one outcome only")
    fit_data = FitData(
        data.residuals.astype(np.float64),
        data.success.astype(int),
        *contrast,
        *personas,
        data.correlation,
        seed=data.seed,
        centred=data.site.centred,
    )
    try:
        return method.find(fit_data, data.dictionary), fit_data.residual_norm
    except ValueError as error:
        raise DataError(f"no direction: {error}") from error


def _logit(
    concept_direction: str, data: TrainingData
) -> tuple[Float[np.ndarray, " d_model"], float, str]:
    """Return weight and bias of the logit of success that margins are on, and a caveat.

    Raises:
        DataError: if the training rows do not tell success from failure, or the direction does not
            point to success.
    """
    if concept_direction == "probe":
        probe = fit_probe(data.residuals, data.success, seed=data.seed, centred=data.site.centred)
        note = "the probe of success is no better than chance" if probe.at_chance else ""
        return probe.weight_vector, probe.bias, note
    if data.success.all() == data.success.any():
        raise DataError("one outcome only")
    direction, _ = _found(DIRECTIONS[FOUND_BY[concept_direction]](), data)
    return *calibrated(direction.vector, data.residuals, data.success, concept_direction), ""


def _programs(method: str, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    """Return every strength of a program, the weakest first.

    A static program is solved for each row at its last prompt token, an adaptive one again at every
    position. A shared one is solved once, for the validation row furthest from the margin, and
    every row gets that vector.

    Raises:
        DataError: as :func:`_logit`, or if the path of the programs cannot be followed.
    """
    weight, bias, note = _logit(settings.concept_direction, data)
    path = SteeringPath.fit(data.dictionary.astype(np.float64), weight)
    mode, program = mode_of(method), program_of(method)
    solver = None
    if mode == "adaptive":
        try:
            path.extend(np.inf)  # no example says what residuals new tokens will have
        except DegeneratePathError as error:
            raise DataError(f"the path of the program ends: {error}") from error
        solver = AdaptiveSolver(path, weight, bias, program, data.site, data.device)
    shared_by = data.shared_by if mode == "shared" else None

    def steer(strength: OptimalSteering, parameter: float, residuals: Residuals) -> SteeredInputs:
        shortfall = strength.shortfalls(residuals, weight, bias, shared_by)
        found = strength.solve(path, shortfall)
        solved = np.isin(found.status, SOLVED)  # a solution that missed its tolerance is none
        reason = ["" if ok else f"program: {s}" for ok, s in zip(solved, found.status, strict=True)]
        if solver is not None:
            n = len(residuals)
            plan = AdaptivePlan(solver, np.full(n, strength.tau), np.full(n, parameter))
            return SteeredInputs(Intervention({data.site: plan}), None, reason, note)
        vectors = np.where(solved[:, None], found.vector, np.nan)
        l0 = np.where(solved, found.l0, 0)
        return SteeredInputs(Intervention({data.site: RowVectors(vectors)}), l0, reason, note)

    return [
        Strength(f"tau {strength.tau:g}, {name} {parameter:g}", partial(steer, strength, parameter))
        for strength, name, parameter in _grid(program, settings)
    ]


def _grid(program: Program, settings: "SparseMethods") -> list[tuple[OptimalSteering, str, float]]:
    """Return every strength, the weakest first, with the name and value of its parameter."""
    if program == "qp":
        qp_lambda = settings.qp_lambda
        return [(QPOptimalSteering(qp_lambda, tau), "lambda", qp_lambda) for tau in settings.tau]
    return [
        (ConvexOptimalSteering(epsilon, tau), "epsilon", epsilon)
        for epsilon, tau in product(settings.epsilon, settings.tau)
    ]
