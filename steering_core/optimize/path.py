"""The steering path: every QP and SOCP with one probe constraint, for every input, at once."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from steering_core.errors import StorageError
from steering_core.optimize.checks import as_float64, as_numbers, not_negative, positive
from steering_core.optimize.dictionary import Dictionary, vector_digest
from steering_core.optimize.follow import Follower
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.knots import LIMIT, Knots
from steering_core.optimize.path_file import read_path, write_path
from steering_core.optimize.queries import PathRangeError, certified, codes, fits, queries
from steering_core.optimize.solution import Program, Solutions


class SteeringPath:
    """``y(s) = argmin 1ᵀy + ½‖Dᵀy‖²  s.t. aᵀy ≥ s, y ≥ 0`` (``a = D w``) for all s fitted so far.

    With a shortfall r = τ − w·h − b, both programs are points of this one path:

    - QP(λ, r), ``min 1ᵀδ + (λ/2)‖Dᵀδ‖² s.t. aᵀδ ≥ r, δ ≥ 0``, is ``δ = y(λr)/λ``;
    - SOCP(ε, r), ``min 1ᵀδ s.t. aᵀδ ≥ r, ‖Dᵀδ‖ ≤ ε, δ ≥ 0``, is ``δ = r y(s)/s`` at the s where
      ``‖Dᵀy(s)‖/s = ε/r``, infeasible if that ratio is below its limit for s → ∞.

    y is piecewise linear in s. It is the non-negative lasso path of w on the dictionary,
    ``z(α) = argmin_{z ≥ 0} ½‖Dᵀz − w‖² + α 1ᵀz``, with ``α = 1/μ`` and ``y = μ z``.

    A path is fitted as far as queries need; one that needs more extends it. The L1 cost is on
    coefficients of the rows as given: rows of another norm are other costs.
    """

    def __init__(
        self,
        knots: Knots,
        d_sae: int,
        weight: Float[np.ndarray, " d_model"],
        follower: Follower | None = None,
        digests: dict[str, str] | None = None,
        dictionary: Dictionary | None = None,
    ) -> None:
        self._knots, self._follower, self._dictionary = knots, follower, dictionary
        self._digests = digests
        self.d_sae, self.weight = d_sae, weight

    @classmethod
    def fit(
        cls,
        decoder: Any,
        probe_weight: Any,
        s: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> "SteeringPath":
        """Start the path of a probe on a dictionary, and follow it to ``s``.

        Args:
            decoder: ``(d_sae, d_model)``, numpy or torch, any float type; or a ``Dictionary``.
            probe_weight: ``(d_model,)``, oriented so that the target class scores higher.
            s: position to fit to; queries extend the path by themselves.
            device: where products with the whole dictionary run.

        Raises:
            ValueError: naming the argument, for wrong shapes and values that are not finite.
        """
        dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
        weight = as_float64("probe_weight", probe_weight, 1).copy()  # callers may mutate theirs
        fits(dictionary, weight)
        follower = Follower(dictionary, weight)
        path = cls(follower.knots, dictionary.d_sae, weight, follower, None, dictionary)
        return path.extend(s)

    @property
    def knots(self) -> Knots:
        """The knots known so far."""
        return self._follower.knots if self._follower else self._knots

    @property
    def d_model(self) -> int:
        """Length of a residual vector."""
        return self.weight.size

    @property
    def feasible(self) -> bool:
        """Whether any feature raises the probe; if not, every r > 0 is infeasible."""
        return bool(np.isfinite(self.knots.mu[0]))

    @property
    def stuck(self) -> bool:
        """Whether float64 did not suffice to follow the path beyond its knots."""
        return self._follower is not None and self._follower.stuck

    def extend(self, s: float = 0.0, norm: float = np.inf) -> "SteeringPath":
        """Follow the path to position ``s``, and on until ``‖Dᵀu‖ <= norm`` unless it ends.

        ``extend(np.inf)`` follows it to its end. Returns the path.

        Raises:
            ValueError: naming ``s`` or ``norm``, if it is no number or below 0.
            PathRangeError: if the path would have to grow and has no decoder.
            DegeneratePathError: if the path cannot be continued in float64.
        """
        s, norm = not_negative("s", s), not_negative("norm", norm)
        while self.feasible and not self._covers(s, norm):
            if self._follower is None:
                raise PathRangeError(
                    f"The path is fitted to s = {self.knots.s[-1]:.6g} only and this query lies "
                    "beyond: load it with its decoder, or fit it further before saving."
                )
            self._follower.block()
        return self

    def qp(self, shortfall: Any, lam: Any, tolerance: float = 1e-8) -> Solutions:
        """Solve QP(λ, r) for each input.

        Args:
            shortfall: r = τ − w·h − b, a number or ``(n,)``; r <= 0 gives δ = 0.
            lam: λ > 0, a number or ``(n,)``.
            tolerance: a solution whose certified relative gap, of either sign, or whose miss is
                larger is ``"inaccurate"``.

        Raises:
            ValueError: naming the argument.
            PathRangeError: as :meth:`extend`.
        """
        shortfall, lam = queries(shortfall, "lam", positive("lam", lam), tolerance)
        position = np.maximum(shortfall, 0.0) * lam
        if not np.isfinite(position).all():
            raise ValueError("lam times shortfall overflows.")
        reached = self._reach(position, np.full(1, np.inf))
        code = codes(shortfall, self.feasible, reached)
        return certified(self, "qp", shortfall, position, lam, code, tolerance)

    def socp(self, shortfall: Any, epsilon: Any, tolerance: float = 1e-8) -> Solutions:
        """Solve SOCP(ε, r) for each input; ``epsilon`` >= 0, otherwise as :meth:`qp`."""
        epsilon = positive("epsilon", epsilon, zero=True)
        shortfall, epsilon = queries(shortfall, "epsilon", epsilon, tolerance)
        needs = shortfall > 0
        norm = np.full(shortfall.size, np.inf)
        np.divide(epsilon, shortfall, out=norm, where=needs)
        weight = float(np.linalg.norm(self.weight))  # ‖Dᵀu‖‖w‖ >= w·Dᵀu >= 1, always
        possible = needs & (norm >= (1.0 - LIMIT) / weight if weight else False)
        reached = np.ones(shortfall.size, dtype=bool)
        if self.feasible and possible.any():
            reached[possible] = self._reach(np.zeros(1), norm[possible])
            possible &= self.knots.attainable(norm)
        feasible = possible & self.feasible
        position, known = np.zeros(shortfall.size), feasible & reached
        position[known] = self.knots.at_norm(norm[known])
        code = codes(shortfall, feasible, reached)
        return certified(self, "socp", shortfall, position, epsilon, code, tolerance)

    def at(
        self,
        position: Any,
        shortfall: Any,
        program: Program,
        parameter: Any,
        tolerance: float = 1e-8,
    ) -> Solutions:
        """Rebuild solutions from their coordinates.

        Args:
            position: path position s, ``(n,)``; NaN for infeasible inputs. A solution that misses
                its program at this position is ``"inaccurate"``.
            shortfall: r, ``(n,)``.
            program: ``"qp"`` or ``"socp"``.
            parameter: λ or ε, a number or ``(n,)``.
            tolerance: as :meth:`qp`.

        Raises:
            ValueError: naming the argument.
            PathRangeError: as :meth:`extend`.
        """
        if program not in ("qp", "socp"):
            raise ValueError(f"program must be 'qp' or 'socp', not {program!r}.")
        parameter = positive("parameter", parameter, zero=program == "socp")
        shortfall, parameter = queries(shortfall, "parameter", parameter, tolerance)
        position = np.atleast_1d(as_numbers("position", position))
        if position.shape != shortfall.shape or (position < 0).any():
            raise ValueError(f"position must hold {shortfall.size} values >= 0 or NaN.")
        known = ~np.isnan(position)
        reached = np.ones(position.size, dtype=bool)
        moved = known & (shortfall > 0)
        start = np.maximum(position[moved], np.finfo(float).tiny)  # the first segment at least
        reached[moved] = self._reach(start, np.full(1, np.inf))
        code = codes(shortfall, known & self.feasible, reached)
        return certified(self, program, shortfall, position, parameter, code, tolerance)

    def save(self, file: str | Path) -> None:
        """Write the fitted range to ``file`` (safetensors), with digests of decoder and weight."""
        write_path(file, self.knots, self.weight, self.d_sae, self.digests)

    @classmethod
    def load(
        cls, file: str | Path, decoder: Any = None, device: str | torch.device = "cpu"
    ) -> "SteeringPath":
        """Read a saved path; without ``decoder`` it answers inside its fitted range only.

        Raises:
            StorageError: if the file is missing, damaged, no path, or of another decoder.
        """
        knots, weight, d_sae, digests = read_path(file)
        dictionary = follower = None
        if decoder is not None:
            dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
            if dictionary.digest() != digests["decoder"]:
                raise StorageError(f"{file} was fitted on another decoder: fit it again.")
            follower = None if knots.complete else Follower(dictionary, weight, knots)
        return cls(knots, d_sae, weight, follower, digests)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the ``decoder`` and of the ``weight`` the path belongs to."""
        if self._digests is None:
            self._digests = {
                "decoder": self._dictionary.digest(),
                "weight": vector_digest(self.weight),
            }
        return self._digests

    def _reach(
        self, position: Float[np.ndarray, " n"], norm: Float[np.ndarray, " m"]
    ) -> Bool[np.ndarray, " n"]:
        """Extend as far as queries need and float64 allows; which of them that covers."""
        with suppress(DegeneratePathError):  # what is not covered then has failed
            self.extend(position.max(initial=0.0), norm.min(initial=np.inf))
        return self._covers(position, norm)

    def _covers(self, s: Any, norm: Any) -> Any:
        """Whether queries, numbers or vectors of them, lie inside the fitted range."""
        knots = self.knots
        fallen = knots.norm[-1] if knots.norm.size else np.inf
        return (s <= knots.reach) & ((norm == np.inf) | knots.complete | (fallen <= norm))
