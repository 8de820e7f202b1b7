"""The named variants of the two programs: other limits, a concept subspace, one shared vector."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from steering_core.optimize.checks import as_float64, at_least
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Program, Solutions
from steering_core.optimize.working_set.bounds import (
    Limits,
    ablation_limits,
    box_limits,
    prefilter,
    relevance,
    shared,
)
from steering_core.optimize.working_set.inner import ConeSolver
from steering_core.optimize.working_set.solver import WorkingSet, WorkingSetSolutions
from steering_core.probes.linear_probe import floored_spread


@dataclass(frozen=True)
class ConceptSubspace:
    """Directions that separate two classes, oriented to the target class.

    Attributes:
        directions: orthonormal rows, ``(k, d_model)``; the most separating first.
        thresholds: mean of the target class along each direction, ``(k,)``.
        separation: distance of the class means along each direction in units of the pooled
            standard deviation, ``(k,)``, falling. No deviation counts as less than a tenth of the
            median one: a component that hardly varies separates nothing that matters.
    """

    directions: Float[np.ndarray, "k d_model"]
    thresholds: Float[np.ndarray, " k"]
    separation: Float[np.ndarray, " k"]

    def shortfall(self, residuals: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n k"]:
        """By how much each residual misses each threshold; <= 0 if it reaches it.

        Raises:
            ValueError: naming ``residuals``.
        """
        residuals = as_float64("residuals", residuals, 2)
        if residuals.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"residuals must be (n, {self.directions.shape[1]}), not {residuals.shape}."
            )
        return self.thresholds - residuals @ self.directions.T


def fit_subspace(
    residuals: Any, labels: Any, target: int = 1, n_components: int = 50, k: int = 5
) -> ConceptSubspace:
    """Supervised PCA: principal components of the centred residuals, the k most separating.

    Args:
        residuals: ``(n, d_model)``.
        labels: 0 or 1, ``(n,)``.
        target: the class steered to.
        n_components: principal components to choose from, at most as many as there are.
        k: directions kept.

    Raises:
        ValueError: naming the argument, also if one class is missing or the residuals have fewer
            than k components.
    """
    residuals = as_float64("residuals", residuals, 2)
    labels = np.asarray(labels)
    if labels.shape != (len(residuals),) or set(np.unique(labels)) != {0, 1}:
        raise ValueError(f"labels must hold both 0 and 1, {len(residuals)} in all.")
    if target not in (0, 1):
        raise ValueError(f"target must be 0 or 1, not {target}.")
    k, n_components = at_least("k", k, 1), at_least("n_components", n_components, 1)
    if k > n_components:
        raise ValueError(f"k must be between 1 and n_components = {n_components}, not {k}.")
    _, size, rows = np.linalg.svd(residuals - residuals.mean(axis=0), full_matrices=False)
    rows = rows[size > 1e-10 * size[0]][:n_components]
    if len(rows) < k:
        raise ValueError(f"residuals have {len(rows)} principal components, fewer than k = {k}.")
    scores = residuals @ rows.T
    inside, outside = scores[labels == target], scores[labels != target]
    pooled = (inside.var(axis=0) * len(inside) + outside.var(axis=0) * len(outside)) / len(scores)
    apart = inside.mean(axis=0) - outside.mean(axis=0)
    apart /= floored_spread(np.sqrt(np.maximum(pooled, np.finfo(float).tiny)))[0]
    best = np.argsort(-np.abs(apart), kind="stable")[:k]
    sign = np.where(apart[best] < 0, -1.0, 1.0)
    return ConceptSubspace(
        sign[:, None] * rows[best], sign * inside.mean(axis=0)[best], np.abs(apart[best])
    )


@dataclass(frozen=True)
class VariantPrograms:
    """The programs of some inputs, in every variant.

    - ``path``: the plain program on the full dictionary, ``δ ≥ 0``;
    - ``prefilter``: each input on its own selection of features, as published (:func:`prefilter`);
    - ``signed``: active features may be turned down to zero, ``δ ≥ −f(h)``;
    - ``box``: no coefficient above ``box_factor`` times the feature's largest activation;
    - ``subspace``: a margin for each direction of a concept subspace instead of the probe's;
    - ``shared``: one vector for all inputs: that of the input furthest from the margin.

    Attributes:
        path: of the oriented probe on the dictionary.
        dictionary: the decoder.
        residuals: of the inputs, as the site sees them, ``(n, d_model)``.
        shortfall: of the probe's margin, ``(n,)``.
        activations: f(h) >= 0, ``(n, d_sae)``, in lengths along the decoder's rows.
        largest: largest activation of each feature on training rows, ``(d_sae,)``.
        subspace: directions and thresholds.
        prefilter_features: size of the prefilter.
        box_factor: of the box.
        cone_solver: the inner solver of the SOCP.
    """

    path: SteeringPath
    dictionary: Dictionary
    residuals: Float[np.ndarray, "n d_model"]
    shortfall: Float[np.ndarray, " n"]
    activations: sparse.csr_array
    largest: Float[np.ndarray, " d_sae"]
    subspace: ConceptSubspace
    prefilter_features: int = 2000
    box_factor: float = 1.0
    cone_solver: ConeSolver = "clarabel"

    def solve(
        self, variant: str, program: Program, parameter: float
    ) -> Solutions | WorkingSetSolutions:
        """Solve a variant for every input; ``shared`` gives one solution for all of them.

        Each call makes its own working set, so its results do not depend on earlier calls.

        Args:
            variant: see above.
            program: ``"qp"`` or ``"socp"``.
            parameter: λ or ε.

        Raises:
            ValueError: naming the argument.
        """
        if program not in ("qp", "socp"):
            raise ValueError(f"program must be 'qp' or 'socp', not {program!r}.")
        if variant == "path":
            return getattr(self.path, program)(self.shortfall, parameter)
        directions, shortfall, limits = self._constraints(variant)
        solver = WorkingSet(self.dictionary, directions, cone_solver=self.cone_solver)
        return getattr(solver, program)(shortfall, parameter, limits)

    def _constraints(self, variant: str) -> tuple[Any, Float[np.ndarray, "n k"], Limits]:
        """Directions, shortfalls and limits of a variant that the path does not solve."""
        weight, shortfall = self.path.weight, self.shortfall[:, None]
        match variant:
            case "prefilter":
                scores = relevance(self.dictionary, weight)
                mask = prefilter(self.activations, scores, self.prefilter_features)
                return weight, shortfall, Limits(up=np.where(mask, np.inf, 0.0))
            case "signed":
                return weight, shortfall, ablation_limits(self.activations)
            case "box":
                return weight, shortfall, box_limits(self.largest, self.box_factor)
            case "subspace":
                return (
                    self.subspace.directions,
                    self.subspace.shortfall(self.residuals),
                    Limits(),
                )
            case "shared":
                worst, limits = shared(shortfall, Limits(), self.dictionary.d_sae)
                return weight, worst[None], limits
        raise ValueError(f"variant: there is none called {variant!r}.")
