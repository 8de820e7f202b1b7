"""The engine behind the steering path: it follows the parametric program event by event.

The engine follows ``y(s) = argmin 1ᵀy + ½‖Dᵀy‖²  s.t. aᵀy ≥ s, y ≥ 0`` with ``a = D w`` as s
grows from 0. This is the non-negative lasso path of w on the dictionary, with the price
``μ = 1/α`` as parameter (``z(α) = y/μ``). In μ every quantity is *linear* between events:

    y_A = μ p − q,   p = (D_A D_Aᵀ)⁻¹ a_A,   q = (D_A D_Aᵀ)⁻¹ 1
    reduced cost   κ_i = 1 + d_iᵀ(Dᵀy) − μ a_i = 1 − d_iᵀ(equi + μ rho)   >= 0.

An event is a κ_i or a y_i reaching zero. If a row enters that nearly equals an active one, the
active one leaves almost at once, and the coefficients in between are mostly rounding error. Such
rows are exchanged directly; the loss of optimality is below rounding. Events are searched among a
few columns. The reduced costs of the *full* dictionary are then computed at each new knot; columns
that violate optimality join, and the block of events is repeated.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.factor import INDEPENDENT, ActiveQR, nonnegative_least_squares

_TIE = 1e-12  # reduced costs and coefficients below this (relative) are zero
FLAT = 1e-12  # |d_iᵀ rho| and a_i below this times ‖d_i‖‖w‖ is zero
_GIVES_WAY = 1e-3  # an active row with a smaller weight in a dependent row stays active
_INSTANT = 1e-4  # an exchange is over within this relative change of the price
_PATIENCE = 4  # events without progress of the price before a dependent row is ignored
_STALLED = 64  # events without progress of the price before giving up


class DegeneratePathError(ArithmeticError):
    """The path cannot be continued in float64: too many events at one price."""


@dataclass(frozen=True)
class Knot:
    """Where an event happened: price ``mu`` and the positive coefficients of y there.

    ``active`` is the active set just after the event, in the order of the factorisation.
    """

    mu: float
    indices: Int[np.ndarray, " k"]
    values: Float[np.ndarray, " k"]
    active: tuple[int, ...]


@dataclass(frozen=True)
class Ray:
    """The last, unbounded segment: ``dy/dμ`` on the active set. No event follows."""

    indices: Int[np.ndarray, " k"]
    slope: Float[np.ndarray, " k"]


class Homotopy:
    """Follows the events on a set of working columns.

    Args:
        dictionary, w: the decoder and the probe weight, ``(d_model,)``.
        a: ``D w`` over the full dictionary.
        mu, active: where to start; by default at the beginning of the path.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        w: Float[np.ndarray, " d_model"],
        a: Float[np.ndarray, " d_sae"],
        mu: float = 0.0,
        active: Iterable[int] = (),
    ) -> None:
        self._dictionary, self._w, self._a = dictionary, w, a
        self._flat = FLAT * dictionary.norms * float(np.linalg.norm(w))
        self._qr = ActiveQR(w)
        self.restart(mu, active)
        self.work_on(np.array(self.active, dtype=int))

    def restart(self, mu: float, active: Iterable[int]) -> None:
        """Go to a price and its active set; call :meth:`work_on` next."""
        self.mu, self.ray = mu, None
        self.active = [int(index) for index in active]
        self._qr.rebuild(self._dictionary.rows(np.array(self.active, dtype=int)))
        self._blocked: set[int] = set()
        self._stalled, self._settled = 0, 0.0  # the price at which the last exchange is over

    def work_on(self, columns: Int[np.ndarray, " m"]) -> None:
        """Search for events among ``columns`` and the active columns only."""
        self._columns = np.union1d(columns, np.array(self.active, dtype=int)).astype(int)
        self._rows = self._dictionary.rows(self._columns)
        self._place = {int(index): i for i, index in enumerate(self._columns)}
        self._columns_flat = self._flat[self._columns]
        self._reprice()

    def next_price(self) -> Float[np.ndarray, " d_sae"]:
        """The price at which each column of the full dictionary would enter if none came before."""
        slope, level = self._dictionary.price(np.stack([self._qr.rho, self._qr.equi])).T
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(slope > self._flat, (1.0 - level) / slope, np.inf)
        price[self.active] = np.inf
        return price

    def rising(self) -> Float[np.ndarray, " d_sae"]:
        """How fast each reduced cost falls with the price; zero for active columns and rounding."""
        slope = self._dictionary.price(self._qr.rho)
        slope[self.active] = 0.0
        return np.where(slope > self._flat, slope, 0.0)

    def step(self) -> Knot | None:
        """Go to the next event and apply it. Returns None, and sets ``ray``, if no event follows.

        Raises:
            DegeneratePathError: after many events at one price.
        """
        p, q = self._qr.solve()
        come, leave = self._entries(), self._exits(p, q)
        settled = self._settled if self._settled > self.mu else np.inf
        mu = min(come.min(initial=np.inf), leave.min(initial=np.inf), settled)
        if not np.isfinite(mu):
            left = self._w - p @ self._rows[[self._place[index] for index in self.active]]
            p = p + self._qr.combination(left)  # one refinement: an error would grow with s
            self.ray = Ray(np.array(self.active, dtype=int), np.maximum(p, 0.0))
            return None
        self._stalled = 0 if mu > self.mu * (1 + 1e-14) else self._stalled + 1
        if self._stalled > _STALLED:
            raise DegeneratePathError(f"{_STALLED} events at price {mu:.17g}: the path is stuck.")
        self.mu = mu
        y = np.maximum(mu * p - q, 0.0)
        y[y <= _TIE * y.max(initial=0.0)] = 0.0
        y[leave == mu] = 0.0
        entering = self._tied(mu) | (come == mu)
        before, zero = np.array(self.active, dtype=int), np.flatnonzero(y == 0)
        if mu < min(come.min(initial=np.inf), leave.min(initial=np.inf)):
            pass  # the end of an exchange: a knot, but no event
        elif entering.sum() == 1 and zero.size == 0:
            self._enter(int(self._columns[entering][0]), y)
        elif zero.size == 1 and not entering.any():
            self._remove(zero)
        else:
            self._resolve(zero, self._columns[entering], y)
        return Knot(mu, before[y > 0], y[y > 0], tuple(self.active))

    def _entries(self) -> Float[np.ndarray, " m"]:
        price = np.full(self._columns.size, np.inf)
        able = self._outside & (self._slope > self._columns_flat)
        price[able] = np.maximum((1.0 - self._level[able]) / self._slope[able], self.mu)
        return price

    def _exits(
        self, p: Float[np.ndarray, " m"], q: Float[np.ndarray, " m"]
    ) -> Float[np.ndarray, " m"]:
        price, falling = np.full(p.size, np.inf), p < -_TIE * np.abs(p).max(initial=0.0)
        price[falling] = np.maximum(q[falling] / p[falling], self.mu)
        return price

    def _tied(self, mu: float) -> Bool[np.ndarray, " m"]:
        cost = 1.0 - self._level - mu * self._slope
        return self._outside & (cost <= _TIE * (1.0 + mu * np.abs(self._a[self._columns])))

    def _enter(self, index: int, y: Float[np.ndarray, " m"]) -> None:
        if not self._add(index) and not self._exchange(index, y):
            self._block([index])

    def _block(self, indices: list[int]) -> None:
        """Ignore rows that depend on the active ones until an active row leaves."""
        self._blocked.update(indices)
        self._outside[[self._place[index] for index in indices]] = False

    def _add(self, index: int) -> bool:
        """Make a row active; False (nothing done) if it depends on the active rows."""
        place = self._place[index]
        if not self._qr.append(self._rows[place]):
            return False
        self._outside[place] = False
        self.active.append(index)
        direction, c, b = self._qr.last()
        product = self._rows @ direction
        self._slope -= c * product
        self._level += b * product
        return True

    def _exchange(self, index: int, y: Float[np.ndarray, " m"]) -> bool:
        """Replace an active row by a profitable row that depends on it; False if none can leave.

        Moving along ``e_index − weights`` does not change ``Dᵀy``. The row whose coefficient
        reaches zero first leaves. ``_settled`` is the price at which its reduced cost is zero
        again and rising.
        """
        place = self._place[index]
        if self._slope[place] <= self._columns_flat[place]:
            return False
        weights = self._qr.combination(self._rows[place])
        ratio = np.full(y.size, np.inf)
        np.divide(y, weights, out=ratio, where=weights > _GIVES_WAY)
        if not np.isfinite(ratio.min(initial=np.inf)):
            return False
        position = int(ratio.argmin())
        gone = self._place[self.active[position]]
        self._remove(np.array([position]))
        if not self._add(index):
            raise DegeneratePathError(f"Dependent rows at price {self.mu:.17g} have no order.")
        if self._slope[gone] < 0:
            settled = (1.0 - self._level[gone]) / self._slope[gone]
            self._settled = min(settled, self.mu * (1.0 + _INSTANT))
        return True

    def _remove(self, positions: Int[np.ndarray, " k"]) -> None:
        for position in sorted(positions, reverse=True):
            self._qr.remove(int(position))
            del self.active[position]
        self._blocked.clear()
        self._reprice()

    def _reprice(self) -> None:
        self._slope = self._rows @ self._qr.rho
        self._level = self._rows @ self._qr.equi
        self._outside = ~np.isin(self._columns, [*self.active, *self._blocked])

    def _resolve(
        self,
        zero: Int[np.ndarray, " k"],
        entering: Int[np.ndarray, " t"],
        y: Float[np.ndarray, " m"],
    ) -> None:
        """Several columns reach zero at once: a small least-squares problem decides which move.

        The next p minimises ``‖D_Aᵀp − w‖`` with ``p ≥ 0`` on the tied columns, free elsewhere.
        """
        tied = np.union1d(np.array(self.active, dtype=int)[zero], entering).astype(int)
        self._remove(zero)
        outside = self._qr.outside(self._rows[[self._place[i] for i in tied]])
        length = np.linalg.norm(outside, axis=1)
        free = length > INDEPENDENT * self._dictionary.norms[tied]
        weight, target = np.zeros(int(free.sum())), float(np.linalg.norm(self._qr.rho))
        if free.any() and target > 0.0:
            weight = nonnegative_least_squares(
                (outside[free] / length[free, None]).T, self._qr.rho / target
            )
            if weight is None:
                raise DegeneratePathError(f"Rows tied at price {self.mu:.17g} have no order.")
        chosen = tied[free][weight > 0].tolist()
        left_over = [index for index in chosen if not self._add(index)]
        if self._stalled > _PATIENCE:  # nearly equal rows keep the price from moving: use one
            self._block(left_over + np.intersect1d(tied[~free], entering).tolist())
        if not chosen and zero.size == 0:  # all of them depend on the active rows
            place = np.array([self._place[int(index)] for index in entering])
            steep = self._slope[place] - self._columns_flat[place]
            if steep.max() > 0:
                self._enter(int(entering[steep.argmax()]), y)
