"""The methods of optimal sparse steering, learned from the training rows of a CorrSteer task.

The programs move a probe of success past a margin with the selected features alone; the fixed
directions are the same as everywhere, with success in place of the label.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from steering_core.config.corrsteer import Bridge
from steering_core.errors import DataError
from steering_core.methods.base import FitData, FixedDirection
from steering_core.methods.contrastive import CAAContrastive, CAAMeanDiff, CAARepE
from steering_core.methods.features import SingleFeature, TopKFeatures
from steering_core.methods.optimal import ConvexOptimalSteering, OptimalSteering, QPOptimalSteering
from steering_core.methods.reference import RandomDirection
from steering_core.methods.status import SOLVED
from steering_core.optimize.path import SteeringPath
from steering_core.probes.fit import fit_probe

Residuals = Float[np.ndarray, "n d_model"]
#: Residuals of texts that should differ in success: after what succeeds, and after what fails.
Pairs = tuple[Residuals, Residuals]


@dataclass(frozen=True)
class Learned:
    """What the methods learn from, at one site.

    Attributes:
        residuals: of the training prompts, at their last token.
        success: whether the unsteered model succeeded on them.
        dictionary: unit decoder rows of the selected features.
        correlation: of each of these features with success.
        contrast: returns residuals of prompts with right and with wrong answers.
        personas: returns residuals of prompts after the instruction to succeed, and to fail.
        seed: of the probe's folds and the random direction.
        centred: the site removes the mean over d_model.
    """

    residuals: Residuals
    success: Bool[np.ndarray, " n"]
    dictionary: Float[np.ndarray, "m d_model"]
    correlation: Float[np.ndarray, " m"]
    contrast: Callable[[], Pairs]
    personas: Callable[[], Pairs]
    seed: int
    centred: bool


@dataclass(frozen=True)
class Added:
    """What is added to each of n rows.

    Attributes:
        vectors: (n, d_model); NaN where there is no solution.
        n_features: features used, (n,); None for a method that does not act through features.
        reason: why a row has no vector; empty where it has one.
        note: a caveat on all of them; empty where there is none.
    """

    vectors: Residuals
    n_features: Int[np.ndarray, " n"] | None
    reason: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Strength:
    """One strength of a method, and what it adds to rows with given residuals."""

    name: str
    add: Callable[[Residuals], Added]


def strengths(method: str, bridge: Bridge, learned: Learned) -> list[Strength]:
    """Return every strength of a method, the weakest first, as the bridge is configured.

    Raises:
        DataError: if the training rows do not have what the method learns from, such as both
            outcomes.
        ValueError: naming ``method``, if there is none of that name.
    """
    if method in _FIXED:
        kind = _FIXED[method]
        made = TopKFeatures(k=bridge.topk) if kind is TopKFeatures else kind()
        return _fixed(made, bridge, learned)
    if method == QPOptimalSteering.name:
        return _programs([QPOptimalSteering(bridge.weight, tau) for tau in bridge.tau], learned)
    if method == ConvexOptimalSteering.name:
        grid = product(bridge.epsilon, bridge.tau)
        return _programs([ConvexOptimalSteering(eps, tau) for eps, tau in grid], learned)
    raise ValueError(f"method: there is no {method!r} in the bridge")


_FIXED: dict[str, type[FixedDirection]] = {
    kind.name: kind
    for kind in (
        RandomDirection,
        CAAMeanDiff,
        CAAContrastive,
        CAARepE,
        SingleFeature,
        TopKFeatures,
    )
}


def _programs(methods: list[OptimalSteering], learned: Learned) -> list[Strength]:
    probe = fit_probe(
        learned.residuals, learned.success, seed=learned.seed, centred=learned.centred
    )
    path = SteeringPath.fit(learned.dictionary.astype(np.float64), probe.weight_vector)
    note = "the probe of success is no better than chance" if probe.at_chance else ""

    def solve(method: OptimalSteering, residuals: Residuals) -> Added:
        h = residuals.astype(np.float64)
        found = method.solve(path, method.shortfall(h, probe.weight_vector, probe.bias))
        solved = np.isin(found.status, SOLVED)  # not what missed its tolerance
        reason = ["" if ok else f"program: {s}" for ok, s in zip(solved, found.status, strict=True)]
        vectors = np.where(solved[:, None], found.vector, np.nan)
        return Added(vectors, np.where(solved, found.l0, 0), reason, note)

    return [Strength(_name(method), partial(solve, method)) for method in methods]


def _name(method: OptimalSteering) -> str:
    if isinstance(method, QPOptimalSteering):
        return f"tau {method.tau:g}, lambda {method.lam:g}"
    assert isinstance(method, ConvexOptimalSteering)
    return f"tau {method.tau:g}, epsilon {method.epsilon:g}"


def _fixed(method: FixedDirection, bridge: Bridge, learned: Learned) -> list[Strength]:
    nothing = np.zeros((0, learned.residuals.shape[1]))
    contrast = learned.contrast() if isinstance(method, CAAContrastive) else (nothing, nothing)
    personas = learned.personas() if isinstance(method, CAARepE) else (nothing, nothing)
    if isinstance(method, CAAContrastive) and not len(contrast[0]):
        raise DataError("there is no wrong answer to make a pair with")
    if isinstance(method, CAAMeanDiff) and learned.success.all() == learned.success.any():
        raise DataError("one outcome only")
    data = FitData(
        learned.residuals.astype(np.float64),
        learned.success.astype(int),
        *contrast,
        *personas,
        learned.correlation,
        seed=learned.seed,
        centred=learned.centred,
    )
    try:
        direction = method.fit(data, learned.dictionary).direction
    except ValueError as error:
        raise DataError(f"no direction: {error}") from error
    assert direction is not None
    used = None if direction.features is None else len(direction.features)

    def add(strength: float, residuals: Residuals) -> Added:
        n = len(residuals)
        vector = strength * data.residual_norm * direction.vector
        features = None if used is None else np.full(n, used)
        return Added(np.repeat(vector[None], n, axis=0), features, [""] * n)

    return [Strength(f"alpha {alpha:g}", partial(add, alpha)) for alpha in bridge.strengths]
