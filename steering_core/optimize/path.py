"""The steering path: every QP and SOCP with one probe constraint, for every input, at once."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import StorageError
from steering_core.optimize.checks import (
    as_float64,
    as_numbers,
    as_vector,
    match,
    not_negative,
    positive,
    tolerated,
)
from steering_core.optimize.dictionary import Dictionary, vector_digest
from steering_core.optimize.follow import Follower
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.knots import LIMIT, Knots
from steering_core.optimize.solution import (
    FAILED,
    INFEASIBLE,
    OPTIMAL,
    SATISFIED,
    Program,
    Solutions,
    certify,
)
from steering_core.storage.arrays import load_arrays, save_arrays

_FORMAT = "steering-path-2"
_ARRAYS = ("s", "mu", "l1", "violation", "v", "indptr", "indices", "values", "active")


class PathRangeError(ValueError):
    """A query lies beyond the fitted range, and the path has no decoder to extend it with."""


class SteeringPath:
    """``y(s) = argmin 1ᵀy + ½‖Dᵀy‖²  s.t. aᵀy ≥ s, y ≥ 0`` (``a = D w``) for all s fitted so far.

    With a shortfall r = τ − w·h − b, both programs are points of this one path:

    - QP(λ, r), ``min 1ᵀδ + (λ/2)‖Dᵀδ‖² s.t. aᵀδ ≥ r, δ ≥ 0``, is ``δ = y(λr)/λ``;
    - SOCP(ε, r), ``min 1ᵀδ s.t. aᵀδ ≥ r, ‖Dᵀδ‖ ≤ ε, δ ≥ 0``, is ``δ = r y(s)/s`` at the s where
      ``‖Dᵀy(s)‖/s = ε/r``, infeasible if that ratio is below its limit for s → ∞.

    y is piecewise linear in s. It is the non-negative lasso path of w on the dictionary,
    ``z(α) = argmin_{z ≥ 0} ½‖Dᵀz − w‖² + α 1ᵀz``, with ``α = 1/μ`` and ``y = μ z``.

    A query that lies beyond the fitted range extends the path. The L1 cost is on the coefficients
    of the rows as given: scaling a row changes its cost.
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
        """Start the path of a probe on a dictionary and follow it to ``s``.

        Args:
            decoder: ``(d_sae, d_model)``, numpy or torch, any float type; or a ``Dictionary``.
            probe_weight: ``(d_model,)``, oriented so that the target class scores higher.
            s: position to fit to; queries beyond it extend the path.
            device: where products with the whole dictionary run.

        Raises:
            ValueError: naming the argument, for wrong shapes and values that are not finite.
        """
        dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
        weight = as_float64("probe_weight", probe_weight, 1).copy()  # callers may mutate theirs
        if weight.size != dictionary.d_model:
            raise ValueError(
                f"probe_weight has {weight.size} values, the decoder's rows {dictionary.d_model}."
            )
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
        """Whether float64 is not accurate enough to follow the path beyond its knots."""
        return self._follower is not None and self._follower.stuck

    def extend(self, s: float = 0.0, norm: float = np.inf) -> "SteeringPath":
        """Follow the path to position ``s``, and further until ``‖Dᵀu‖ <= norm`` or the path ends.

        ``extend(np.inf)`` follows the path to its end. Returns the path.

        Raises:
            ValueError: naming ``s`` or ``norm``, if it is not a number >= 0.
            PathRangeError: if the path has to be extended and has no decoder.
            DegeneratePathError: if the path cannot be continued in float64.
        """
        s, norm = not_negative("s", s), not_negative("norm", norm)
        while self.feasible and not self._covers(s, norm):
            if self._follower is None:
                raise PathRangeError(
                    f"The path is fitted to s = {self.knots.s[-1]:.6g} only, and this query lies "
                    "beyond: load it with its decoder, or fit it further before saving it."
                )
            self._follower.block()
        return self

    def last_position_within(self, features: int) -> float:
        """Return the last position before the path first has more than ``features`` features.

        For QP(λ, r) it is ``λ r``: the densest, and so the shortest, vector with at most so many
        features on this side of the path. If the whole path has no more, it is the position where
        ``‖Dᵀu‖`` is within 1 % of its limit. If already the first segment has more, it is the end
        of that segment. The path is extended as far as needed.

        Raises:
            ValueError: if ``features`` is below 1, or no feature raises the probe.
            DegeneratePathError: as :meth:`extend`.
        """
        if features < 1 or not self.feasible:
            raise ValueError(f"features: no vector of {features} features raises the probe.")
        while True:
            more = np.flatnonzero(self.knots.l0_between > features)
            if more.size:
                return float(self.knots.s[max(int(more[0]), 1)])
            if self.knots.complete:
                near = np.full(1, 1.01 * self.knots.least_norm)
                return max(float(self.knots.at_norm(near)[0]), float(self.knots.s[-1]))
            self.extend(np.nextafter(self.knots.s[-1], np.inf))

    def qp(self, shortfall: Any, qp_lambda: Any, tolerance: float = 1e-8) -> Solutions:
        """Solve QP(λ, r) for each input.

        Args:
            shortfall: r = τ − w·h − b, a number or ``(n,)``; r <= 0 gives δ = 0.
            qp_lambda: λ > 0, a number or ``(n,)``.
            tolerance: a solution is ``"inaccurate"`` if its certified relative gap, of either
                sign, or its miss is larger.

        Raises:
            ValueError: naming the argument.
            PathRangeError: as :meth:`extend`.
        """
        qp_lambda = positive("qp_lambda", qp_lambda)
        shortfall, qp_lambda = _queries(shortfall, "qp_lambda", qp_lambda, tolerance)
        position = np.maximum(shortfall, 0.0) * qp_lambda
        if not np.isfinite(position).all():
            raise ValueError("qp_lambda times shortfall overflows.")
        reached = self._reach(position, np.full(1, np.inf))
        code = _codes(shortfall, self.feasible, reached)
        return self._certified("qp", shortfall, position, qp_lambda, code, tolerance)

    def socp(self, shortfall: Any, epsilon: Any, tolerance: float = 1e-8) -> Solutions:
        """Solve SOCP(ε, r) for each input.

        Args:
            shortfall: r, as of :meth:`qp`.
            epsilon: ε >= 0, the budget of ‖Dᵀδ‖ in residual-stream units, a number or ``(n,)``.
            tolerance: as of :meth:`qp`.

        Raises:
            ValueError: naming the argument.
            PathRangeError: as :meth:`extend`.
        """
        epsilon = positive("epsilon", epsilon, zero=True)
        shortfall, epsilon = _queries(shortfall, "epsilon", epsilon, tolerance)
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
        code = _codes(shortfall, feasible, reached)
        return self._certified("socp", shortfall, position, epsilon, code, tolerance)

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
            position: path position s, ``(n,)``; NaN for infeasible inputs. If the position does
                not fit the program, the solution is ``"inaccurate"``.
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
        shortfall, parameter = _queries(shortfall, "parameter", parameter, tolerance)
        position = np.atleast_1d(as_numbers("position", position))
        if position.shape != shortfall.shape or (position < 0).any():
            raise ValueError(f"position must hold {shortfall.size} values >= 0 or NaN.")
        known = ~np.isnan(position)
        reached = np.ones(position.size, dtype=bool)
        moved = known & (shortfall > 0)
        start = np.maximum(position[moved], np.finfo(float).tiny)  # the first segment at least
        reached[moved] = self._reach(start, np.full(1, np.inf))
        code = _codes(shortfall, known & self.feasible, reached)
        return self._certified(program, shortfall, position, parameter, code, tolerance)

    def save(self, file: str | Path) -> None:
        """Write the fitted range to ``file`` (safetensors) with a SHA-256 of its whole content."""
        knots = {name: getattr(self.knots, name) for name in _ARRAYS}
        arrays = {**knots, "weight": self.weight}
        metadata = {"format": _FORMAT, "d_sae": self.d_sae, "digests": self.digests}
        save_arrays(file, arrays, {**metadata, "contents": _content_digest(arrays, metadata)})

    @classmethod
    def load(
        cls, file: str | Path, decoder: Any = None, device: str | torch.device = "cpu"
    ) -> "SteeringPath":
        """Read a saved path; without ``decoder`` it answers queries in its fitted range only.

        Raises:
            StorageError: if the file is missing, damaged, not a path of this version, or belongs
                to another decoder.
        """
        arrays, metadata = load_arrays(file)
        if metadata.get("format") != _FORMAT or set(arrays) != {*_ARRAYS, "weight"}:
            raise StorageError(f"{file} is not a steering path of this version: fit it again.")
        if metadata.pop("contents", None) != _content_digest(arrays, metadata):
            raise StorageError(f"{file} is damaged: delete it and fit the path again.")
        weight, digests = arrays.pop("weight"), metadata["digests"]
        knots, follower = Knots(**arrays), None
        if decoder is not None:
            dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder, device)
            if dictionary.digest() != digests["decoder"]:
                raise StorageError(f"{file} was fitted on another decoder: fit it again.")
            follower = None if knots.complete else Follower(dictionary, weight, knots)
        return cls(knots, metadata["d_sae"], weight, follower, digests)

    @classmethod
    def load_deepest(cls, files: str | Path | Sequence[str | Path]) -> "SteeringPath":
        """Read the longest of several saved paths of one probe on one dictionary.

        The shorter paths are beginnings of it.

        Args:
            files: one file, or at least one in a sequence.

        Raises:
            StorageError: as :meth:`load`.
            ValueError: if there is no file, or the paths have different decoders or probes.
        """
        names = [files] if isinstance(files, str | Path) else [*files]
        if not names:
            raise ValueError("files: there is no path to read")
        if len(names) == 1:
            return cls.load(names[0])
        paths = [cls.load(name) for name in names]
        if any(path.digests != paths[0].digests for path in paths):
            raise ValueError("files: the paths are of different decoders or probes")
        return max(paths, key=lambda path: len(path.knots.s))

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the ``decoder`` and of the probe ``weight`` of the path."""
        if self._digests is None:
            self._digests = {
                "decoder": self._dictionary.digest(),
                "weight": vector_digest(self.weight),
            }
        return self._digests

    def _certified(
        self,
        program: Program,
        shortfall: Float[np.ndarray, " n"],
        position: Float[np.ndarray, " n"],
        parameter: Float[np.ndarray, " n"],
        code: Int[np.ndarray, " n"],
        tolerance: float,
    ) -> Solutions:
        """The solutions at some positions, with their final status."""
        position = np.where(code == OPTIMAL, position, np.nan)
        position[code == SATISFIED] = 0.0
        solutions = Solutions(self.knots, self.d_sae, program, shortfall, position, parameter, code)
        return certify(solutions, tolerance)

    def _reach(
        self, position: Float[np.ndarray, " n"], norm: Float[np.ndarray, " m"]
    ) -> Bool[np.ndarray, " n"]:
        """Extend the path as far as the queries need; returns which of them it then covers."""
        with suppress(DegeneratePathError):  # queries not covered after this get status failed
            self.extend(position.max(initial=0.0), norm.min(initial=np.inf))
        return self._covers(position, norm)

    def _covers(self, s: Any, norm: Any) -> Any:
        """Whether queries (numbers or vectors) lie inside the fitted range."""
        knots = self.knots
        fallen = knots.norm[-1] if knots.norm.size else np.inf
        return (s <= knots.reach) & ((norm == np.inf) | knots.complete | (fallen <= norm))


def _queries(
    shortfall: Any, name: str, parameter: Float[np.ndarray, " m"], tolerance: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Shortfall and parameter, checked and broadcast to one length.

    Raises:
        ValueError: naming ``shortfall``, the parameter ``name`` or ``tolerance``.
    """
    tolerated(tolerance)
    shortfall = as_vector("shortfall", shortfall)
    if shortfall.size == 1 and parameter.size > 1:
        shortfall = match("shortfall", shortfall, parameter.size)
    return shortfall, match(name, parameter, shortfall.size)


def _codes(
    shortfall: Float[np.ndarray, " n"],
    feasible: Bool[np.ndarray, " n"] | bool,
    reached: Bool[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Statuses before certification; ``reached``: whether the path covers the query."""
    code = np.where(feasible, np.where(reached, OPTIMAL, FAILED), INFEASIBLE)
    return np.where(shortfall <= 0, SATISFIED, code).astype(np.uint8)


def _content_digest(arrays: dict[str, np.ndarray], metadata: dict) -> str:
    """SHA-256 of all that a saved path holds."""
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array)
    return sha.hexdigest()
