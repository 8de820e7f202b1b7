"""The knots of a path: the data that queries read, and the search for a query among them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

FAR = 1e4  # a position beyond this multiple of the last knot is far along the ray
SNAP = 1e-14  # a norm budget this close (relative) above the infimum has position infinity
LIMIT = 1e-12  # a norm budget this close (relative) to the attainable infimum counts as equal


@dataclass(frozen=True)
class Place:
    """Where n queries lie: ``y(s) = left · y[k] + right · y[k + 1]``, row by row.

    After the last knot, row ``k + 1`` is the ray and ``right`` the distance from the knot.
    """

    k: Int[np.ndarray, " n"]
    left: Float[np.ndarray, " n"]
    right: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class FarPrices:
    """Multipliers far along the ray, scaled to be feasible for the dual.

    Under a budget ``norm`` the dual value per unit of margin is ``price − (norm − least_norm)
    size``. ``t`` is the distance from the last knot, ``violation`` the dual violation of the
    multipliers before scaling.
    """

    t: Float[np.ndarray, " m"]
    price: Float[np.ndarray, " m"]
    size: Float[np.ndarray, " m"]
    violation: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class Knots:
    """``K`` knots of ``y(s)`` and, if the path is complete, the ray after the last.

    ``y(s) = argmin 1ᵀy + ½‖Dᵀy‖²  s.t. aᵀy ≥ s, y ≥ 0``. Row k of each array belongs to
    position ``s[k]``; ``s[0] = 0``, ``y[0] = 0`` and s rises strictly. Between knots ``y``,
    ``v = Dᵀy``, ``mu`` and ``l1`` are linear in s. With a ray, a last row ``K`` of each array but
    ``s`` holds the slopes per unit of s after the last knot.

    Attributes:
        s: positions, ``aᵀy``.
        mu: price of the margin.
        l1: ``1ᵀy``.
        violation: worst dual violation ``max_i (μ a_i − d_iᵀv − 1)₊`` over the full dictionary,
            computed at the knot. It is convex between knots, so interpolation gives a bound.
        v: residual vectors.
        indptr, indices, values: y in CSR form.
        active: active set after the last knot, in the order of the factorisation.
    """

    s: Float[np.ndarray, " K"]
    mu: Float[np.ndarray, " rows"]
    l1: Float[np.ndarray, " rows"]
    violation: Float[np.ndarray, " rows"]
    v: Float[np.ndarray, "rows d_model"]
    indptr: Int[np.ndarray, " rows_plus_1"]
    indices: Int[np.ndarray, " nnz"]
    values: Float[np.ndarray, " nnz"]
    active: Int[np.ndarray, " m"]

    @property
    def complete(self) -> bool:
        """Whether the ray is known; then every query lies inside the range."""
        return self.mu.size > self.s.size

    @property
    def reach(self) -> float:
        """Largest position a query can have."""
        return np.inf if self.complete else float(self.s[-1])

    @cached_property
    def square(self) -> Float[np.ndarray, " rows"]:
        """``‖v‖²``."""
        return np.einsum("kd,kd->k", self.v, self.v)

    @cached_property
    def cross(self) -> Float[np.ndarray, " rows_minus_1"]:
        """``v[k] · v[k + 1]``."""
        return np.einsum("kd,kd->k", self.v[:-1], self.v[1:])

    @cached_property
    def norm(self) -> Float[np.ndarray, " K_minus_1"]:
        """``‖Dᵀu(s)‖ = ‖v‖ / s`` at the knots from the second on; it falls."""
        return np.minimum.accumulate(np.sqrt(self.square[1 : self.s.size]) / self.s[1:])

    @cached_property
    def slack_norm(self) -> float:
        """‖Dᵀu(0⁺)‖: any norm budget above it is slack. Infinite on a path without segments."""
        if self.norm.size:
            return float(self.norm[0])
        return float(np.sqrt(self.square[-1])) if self.complete else np.inf

    @cached_property
    def least_norm(self) -> float:
        """Infimum of ``‖Dᵀu‖`` over all u with margin 1; zero if it is not known yet."""
        return float(np.sqrt(self.square[-1])) if self.complete else 0.0

    @cached_property
    def l0(self) -> Int[np.ndarray, " rows"]:
        """Number of non-zero coefficients at each knot, and of the ray."""
        return np.diff(self.indptr).astype(np.int64)

    @cached_property
    def l0_between(self) -> Int[np.ndarray, " rows_minus_1"]:
        """Number of non-zero coefficients between knots k and k + 1."""
        width = int(self.indices.max(initial=0)) + 1
        ones = np.ones(self.values.size, dtype=np.int64)
        pattern = sparse.csr_array((ones, self.indices, self.indptr), shape=(self.l0.size, width))
        shared = pattern[:-1].multiply(pattern[1:]).sum(axis=1)
        return self.l0[:-1] + self.l0[1:] - np.asarray(shared).ravel()

    def coefficients(self, d_sae: int) -> sparse.csr_array:
        """The coefficients at each knot, ``(rows, d_sae)``; the last row is the ray, if any."""
        return sparse.csr_array(
            (self.values, self.indices, self.indptr), shape=(self.l0.size, d_sae)
        )

    def place(self, s: Float[np.ndarray, " n"]) -> Place:
        """Where y(s) lies, for finite ``0 <= s <= reach``."""
        last = self.s.size - 1
        k = np.minimum(np.searchsorted(self.s, s, side="right") - 1, last)
        if not self.complete:
            k = np.minimum(k, max(last - 1, 0))
        onward = np.minimum(k + 1, last)
        step = np.where(k < last, self.s[onward] - self.s[k], 1.0)
        right = (s - self.s[k]) / step
        left = np.where(k < last, (self.s[onward] - s) / step, 1.0)
        return Place(k, left, right)

    def unit_place(self, s: Float[np.ndarray, " n"]) -> Place:
        """Where ``u(s) = y(s)/s`` lies, for ``0 <= s <= inf``; both ends are limits.

        ``u(0⁺)`` is the direction of the first segment, ``u(∞)`` that of the ray.
        """
        ends = (s == 0) | np.isinf(s)
        inner = np.where(ends, self.s[1] if self.s.size > 1 else 1.0, s)
        place = self.place(inner)
        left, right = place.left / inner, place.right / inner
        far = np.isinf(s)
        last = self.s.size - 1
        return Place(
            np.where(far, last, place.k), np.where(far, 0.0, left), np.where(far, 1.0, right)
        )

    def at_norm(self, norm: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Position s with ``‖Dᵀu(s)‖ = norm``; 0 where the norm is slack.

        On a segment this is a quadratic in Bernstein form with one sign change, solved without
        cancellation. The norms must be at least ``least_norm``, up to rounding, and on an
        incomplete path at least the last of ``self.norm``.
        """
        norm = np.maximum(norm, self.least_norm)
        k = np.searchsorted(-self.norm, -norm, side="left")  # self.norm[k] <= norm
        slack = norm >= self.slack_norm
        k = np.where(slack, 0, k)
        ray = k == self.s.size - 1
        onward = np.where(ray, k, k + 1)
        weight = np.where(ray, 1.0, self.s[onward])  # s of the right end, or its slope
        theta = norm**2
        b0 = np.maximum(self.square[k] - theta * self.s[k] ** 2, 0.0)
        b1 = self.cross[k] - theta * self.s[k] * weight
        b2 = np.minimum(self.square[k + 1] - theta * weight**2, 0.0)
        root = np.sqrt(b1**2 - b0 * b2)
        rising = b1 > 0
        top = np.where(rising, b1 + root, b0)
        bottom = np.where(rising, -b2, root - b1)
        with np.errstate(divide="ignore", invalid="ignore"):
            on_ray = self.s[k] + np.where(bottom > 0, top / bottom, np.inf)
            part = np.where(top + bottom > 0, top / (top + bottom), 1.0)
        on_ray[norm <= self.least_norm * (1.0 + SNAP)] = np.inf
        between = self.s[k] + part * (self.s[onward] - self.s[k])
        return np.where(slack, 0.0, np.where(ray, on_ray, between))

    @cached_property
    def far_prices(self) -> FarPrices:
        """Multipliers at several distances along the ray; the knots must be complete."""
        t = np.geomspace(1.0, 1e10, 41) * (self.s[-1] or 1.0)
        return self._far_prices(t)

    def far_price(
        self, norm: Float[np.ndarray, " n"], s: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Lower bounds of ``1ᵀu`` under budgets ``‖Dᵀu‖ <= norm`` whose positions s are far.

        The dual value ``μ − norm ‖v‖`` rises along the ray up to s, but so do the dual violation
        and rounding error. Every place on the ray gives a bound: the best of s and several fixed
        places is taken. The knots must be complete.

        Returns:
            The bounds, and the dual violation of the multipliers of each.
        """
        ways = self.far_prices
        own = self._far_prices(np.where(np.isinf(s), ways.t[-1], s - self.s[-1]))
        more = np.where(np.isinf(s), 0.0, norm - self.least_norm)
        values = np.concatenate(
            [ways.price - more[:, None] * ways.size, (own.price - more * own.size)[:, None]], axis=1
        )
        best = values.argmax(axis=1)
        at_own = best == ways.t.size
        violation = np.where(at_own, own.violation, ways.violation[np.where(at_own, 0, best)])
        return values.max(axis=1), violation

    def _far_prices(self, t: Float[np.ndarray, " m"]) -> FarPrices:
        last = self.s.size - 1
        theta, start, between = self.square[-1], self.square[last], self.cross[last]
        size = np.sqrt(start + 2 * t * between + t**2 * theta)
        # √θ‖v‖ − tθ without cancellation; the price rises by tθ
        excess = theta * (start + 2 * t * between) / (np.sqrt(theta) * size + t * theta)
        violation = self.violation[last] + t * self.violation[-1]
        shrink = 1.0 + violation
        return FarPrices(t, (self.mu[last] - excess) / shrink, size / shrink, violation)

    def attainable(self, norm: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether some u of margin 1 has this norm, as far as the path is known."""
        return norm >= self.least_norm * (1.0 - LIMIT)

    def blend(self, name: str, place: Place) -> Float[np.ndarray, " n"]:
        """The row quantity ``name`` (``mu``, ``l1``, ``violation``), interpolated."""
        values = getattr(self, name)
        onward = np.minimum(place.k + 1, values.size - 1)
        return place.left * values[place.k] + place.right * values[onward]

    def blend_square(self, place: Place) -> Float[np.ndarray, " n"]:
        """``‖v‖²``, interpolated exactly."""
        k, left, right = place.k, place.left, place.right
        onward = np.minimum(k + 1, self.square.size - 1)
        between = self.cross[np.minimum(k, self.cross.size - 1)]
        return (
            left**2 * self.square[k] + 2 * left * right * between + right**2 * self.square[onward]
        )

    def blend_l0(self, place: Place) -> Int[np.ndarray, " n"]:
        """Number of non-zero coefficients."""
        between = self.l0_between[np.minimum(place.k, self.l0_between.size - 1)]
        at_left, at_right = place.right == 0, place.left == 0
        onward = self.l0[np.minimum(place.k + 1, self.l0.size - 1)]
        return np.where(at_left, self.l0[place.k], np.where(at_right, onward, between))
