"""Bounds on an intervention beside its margins: limits of its coefficients, and guards.

Limits hold for the coefficients of each input: signed steering, boxes, prefilters, batches.

Guards are directions along which an intervention may move the residual only so far.
``|g_j·Dᵀδ| ≤ κ_j`` is two margins, ``g_j·Dᵀδ ≥ −κ_j`` and ``−g_j·Dᵀδ ≥ −κ_j``. So the working set
solves a guarded program as one with 2m more margins, with the same certificate. δ = 0 always holds
them, so an input that passes its own margins still gets δ = 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from steering_core.optimize.checks import (
    as_directions,
    as_float64,
    as_number,
    as_numbers,
    at_least,
    match,
)
from steering_core.optimize.dictionary import Dictionary


# ------------------------------------------------------------------ limits of coefficients
@dataclass(frozen=True)
class Limits:
    """``−down ≤ δ ≤ up``, both non-negative; a limit of zero leaves a feature out.

    Each of the two is a number, ``(d_sae,)`` for all inputs, or ``(n, d_sae)``; a matrix may be
    sparse; missing entries are zero. The default is ``0 ≤ δ``.

    Attributes:
        up: largest coefficient, ``inf`` for none.
        down: how far a coefficient may go below zero.
        names: the names of the two in error messages.
    """

    up: Any = np.inf
    down: Any = 0.0
    names: tuple[str, str] = ("up", "down")

    def checked(self, n: int, d_sae: int) -> "Limits":
        """A copy in float64, checked for n inputs.

        Raises:
            ValueError: naming ``up`` or ``down`` (or their source), for a wrong shape or values
                that are not numbers >= 0.
        """
        up, down = self.names
        return replace(
            self, up=_checked(up, self.up, n, d_sae), down=_checked(down, self.down, n, d_sae)
        )

    def row(
        self, i: int, d_sae: int
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        """``(up, down)`` of input i; the limits must be :meth:`checked`."""
        return _row(self.up, i, d_sae), _row(self.down, i, d_sae)

    def rows(
        self, i: int, n: int, d_sae: int
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        """``(up, down)`` of input i of n.

        Raises:
            ValueError: as :meth:`checked`.
        """
        return self.checked(n, d_sae).row(i, d_sae)


def ablation_limits(activations: Any) -> Limits:
    """Signed steering: an active feature may be turned down to zero: ``δ ≥ −f(h)``.

    Args:
        activations: feature activations f(h) >= 0, ``(n, d_sae)`` or ``(d_sae,)``, dense or sparse.

    Raises:
        ValueError: naming ``activations``.
    """
    return Limits(up=np.inf, down=_activations(activations), names=("up", "activations"))


def box_limits(largest: Any, factor: float) -> Limits:
    """No coefficient above ``factor`` times the feature's largest natural activation.

    Args:
        largest: largest activation of each feature, ``(d_sae,)``.
        factor: a number > 0.

    Raises:
        ValueError: naming ``factor`` or ``largest``.
    """
    factor = as_number("factor", factor)
    if not 0 < factor < np.inf:
        raise ValueError(f"factor must be > 0 and finite, not {factor!r}.")
    largest = as_float64("largest", largest, 1)
    if (largest < 0).any():
        raise ValueError("largest must be >= 0.")
    return Limits(up=factor * largest, names=("largest", "down"))


def relevance(
    decoder: Any, directions: Float[np.ndarray, "k d_model"]
) -> Float[np.ndarray, " d_sae"]:
    """``max_j |d_i · w_j| / ‖d_i‖`` of each feature, zero for zero rows.

    Args:
        decoder: ``(d_sae, d_model)``; or a ``Dictionary``.
        directions: ``(k, d_model)`` or ``(d_model,)``.

    Raises:
        ValueError: naming the argument.
    """
    dictionary = decoder if isinstance(decoder, Dictionary) else Dictionary(decoder)
    directions = as_directions(directions, dictionary.d_model)
    product = np.abs(dictionary.price(directions)).max(axis=1)
    norm = dictionary.norms
    return np.divide(product, norm, out=np.zeros(norm.size), where=norm > 0)


def prefilter(
    activations: Any, scores: Float[np.ndarray, " d_sae"], n_features: int = 2000
) -> Bool[np.ndarray, "n d_sae"]:
    """Features each input may use: the top half by activation ∪ the top half by relevance.

    The activation half contains active features only; it is not filled up if there are fewer.

    Args:
        activations: f(h) >= 0, ``(n, d_sae)``, dense or sparse.
        scores: relevance of each feature, ``(d_sae,)``.
        n_features: size of both halves together.

    Raises:
        ValueError: naming the argument.
    """
    n_features = at_least("n_features", n_features, 2)
    active = _activations(activations)
    active = active.toarray() if sparse.issparse(active) else np.atleast_2d(active)
    scores = as_float64("scores", scores, 1)
    if scores.shape != active.shape[1:]:
        raise ValueError(f"scores must have {active.shape[1]} values, not shape {scores.shape}.")
    half = min(n_features // 2, scores.size)
    mask = np.zeros(active.shape, dtype=bool)
    order = np.argsort(-active, axis=1, kind="stable")[:, :half]
    np.put_along_axis(mask, order, np.take_along_axis(active, order, axis=1) > 0, axis=1)
    mask[:, np.argsort(-scores, kind="stable")[:half]] = True
    return mask


def shared(
    shortfall: Float[np.ndarray, "n k"], limits: Limits, d_sae: int
) -> tuple[Float[np.ndarray, " k"], Limits]:
    """The program whose solution serves every input of a batch (the worst case).

    Each direction's margin holds for all inputs if it holds for the largest shortfall. The limits
    are the narrowest of all inputs.
    """
    shortfall = as_float64("shortfall", shortfall, 2)
    limits = limits.checked(len(shortfall), d_sae)
    rows = [limits.row(i, d_sae) for i in range(len(shortfall))]
    up, down = (np.min(part, axis=0) for part in zip(*rows, strict=True))
    return shortfall.max(axis=0), Limits(up=up, down=down)


def _activations(value: Any) -> Any:
    value = _numbers("activations", value)
    data = value.data if sparse.issparse(value) else value
    if not np.isfinite(data).all() or (data < 0).any():
        raise ValueError("activations must be finite and >= 0.")
    return value


def _numbers(name: str, value: Any) -> Any:
    """``value``, dense or sparse, in float64."""
    if not sparse.issparse(value):
        return as_numbers(name, value)
    try:
        return sparse.csr_array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a matrix of numbers: {error}") from error


def _checked(name: str, value: Any, n: int, d_sae: int) -> Any:
    value = _numbers(name, value)
    if value.shape not in ((), (d_sae,), (n, d_sae)):
        raise ValueError(
            f"{name} must be a number, ({d_sae},) or ({n}, {d_sae}), not {value.shape}."
        )
    data = value.data if sparse.issparse(value) else value
    if not (data >= 0).all():
        raise ValueError(f"{name} must be >= 0 and not NaN.")
    return value


def _row(value: Any, i: int, d_sae: int) -> Float[np.ndarray, " d_sae"]:
    if sparse.issparse(value):
        return value[[i]].toarray()[0]
    return np.broadcast_to(value[i] if value.ndim == 2 else value, (d_sae,))


# ---------------------------------------------------------------------------------- guards
@dataclass(frozen=True, eq=False)
class Guards:
    """Directions and how far an intervention may move the residual along each.

    Attributes:
        directions: G, ``(m, d_model)``.
        kappa: κ >= 0, in the unit of ``g_j·v``; ``inf`` guards nothing, ``(m,)``.
        names: of the guards, for messages.
    """

    directions: Float[np.ndarray, "m d_model"]
    kappa: Float[np.ndarray, " m"]
    names: tuple[str, ...]

    @classmethod
    def of(cls, directions: Any, kappa: Any, names: Sequence[str] = ()) -> "Guards":
        """Check and return guards.

        Args:
            directions: ``(m, d_model)`` or ``(d_model,)``.
            kappa: a number, or one for each guard.
            names: of the guards; numbers by default.

        Raises:
            ValueError: naming ``guards``, ``kappa`` or ``names``.
        """
        matrix = as_numbers("guards", directions)
        matrix = np.atleast_2d(as_float64("guards", matrix, min(max(matrix.ndim, 1), 2)))
        bound = as_numbers("kappa", kappa)
        if bound.ndim > 1 or not (bound >= 0).all():
            raise ValueError("kappa must be >= 0 and not NaN: a number, or one for each guard.")
        bound = match("kappa", np.atleast_1d(bound), len(matrix))
        names = tuple(names) or tuple(f"guard {j}" for j in range(len(matrix)))
        if len(names) != len(matrix):
            raise ValueError(f"names: there are {len(names)} for {len(matrix)} guards.")
        if len(set(names)) < len(names):
            raise ValueError("names: two guards have the same.")
        return cls(matrix, bound, names)

    def __len__(self) -> int:
        return len(self.kappa)

    def only(self, chosen: Int[np.ndarray, " j"]) -> "Guards":
        """Return some of the guards."""
        names = tuple(self.names[j] for j in chosen)
        return Guards(self.directions[chosen], self.kappa[chosen], names)

    def mapped(
        self, change: Callable[[Float[np.ndarray, " d_model"]], Float[np.ndarray, " d_model"]]
    ) -> "Guards":
        """Return the guards with each direction changed, as for a program in another metric."""
        return Guards(np.stack([change(one) for one in self.directions]), self.kappa, self.names)

    @property
    def finite(self) -> "Guards":
        """The guards that can be reached at all."""
        return self.only(np.flatnonzero(np.isfinite(self.kappa)))

    @property
    def rows(self) -> Float[np.ndarray, "2m d_model"]:
        """The directions of the margins that stand for the guards: G, then −G."""
        return np.concatenate([self.directions, -self.directions])

    @property
    def bounds(self) -> Float[np.ndarray, " 2m"]:
        """The right-hand sides of these margins."""
        return -np.concatenate([self.kappa, self.kappa])

    def shifts(self, vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n m"]:
        """Return ``g_j·v`` of each vector."""
        return vectors @ self.directions.T

    def over(self, vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n m"]:
        """Return by how much each vector exceeds each guard; negative inside."""
        return np.abs(self.shifts(vectors)) - self.kappa


def irreducible(guards: Guards, feasible: Callable[[Guards], bool]) -> tuple[str, ...]:
    """Return the names of guards that cannot be held together, none of which can be left out.

    A deletion filter (Chinneck 2008): each guard in turn is left out, and for good if the rest is
    still infeasible.

    Args:
        guards: with which the program is infeasible.
        feasible: whether the program is feasible with some of the guards.

    Returns:
        No names if the program is infeasible without any guard.
    """
    left = guards
    for name in guards.names:
        rest = left.only(np.array([j for j, own in enumerate(left.names) if own != name], int))
        if not feasible(rest):
            left = rest
    return left.names
