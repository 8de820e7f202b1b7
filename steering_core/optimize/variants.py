"""Variants of the two programs: other limits, other goals, one vector for all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.inner import ConeSolver
from steering_core.optimize.limits import (
    Limits,
    ablation_limits,
    box_limits,
    prefilter,
    relevance,
    shared,
)
from steering_core.optimize.outcome import WorkingSetSolutions
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Program, Solutions
from steering_core.optimize.subspace import ConceptSubspace
from steering_core.optimize.working_set import WorkingSet


@dataclass(frozen=True)
class VariantPrograms:
    """The programs of some inputs, in every variant.

    - ``path``: as they are, on the full dictionary, ``δ ≥ 0``;
    - ``prefilter``: each input on features of its own, as published (:func:`prefilter`);
    - ``signed``: active features may be turned down to zero, ``δ ≥ −f(h)``;
    - ``box``: no coefficient above ``box_factor`` times the feature's largest activation;
    - ``subspace``: a margin for each direction of a concept subspace instead of the probe's;
    - ``shared``: one vector for all inputs, that of the input furthest from the margin.

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
        cone_solver: inner solver of the SOCP.
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
        """Solve a variant for every input; ``shared`` gives one solution, that of all.

        A working set is made for each call, so that what a call takes and finds does not depend
        on the calls before it.

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
