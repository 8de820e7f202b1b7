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
from scipy.linalg import qr
from scipy.linalg.blas import drot, dtpsv
from scipy.optimize import nnls

from steering_core.optimize.dictionary import Dictionary

_TIE = 1e-12  # reduced costs and coefficients below this (relative) are zero
FLAT = 1e-12  # |d_iᵀ rho| and a_i below this times ‖d_i‖‖w‖ is zero
_GIVES_WAY = 1e-3  # an active row with a smaller weight in a dependent row stays active
_INSTANT = 1e-4  # an exchange is over within this relative change of the price
_PATIENCE = 4  # events without progress of the price before a dependent row is ignored
_STALLED = 64  # events without progress of the price before giving up
INDEPENDENT = 1e-6  # a row whose relative distance to the span is below this lies inside it
_FIRST_CAPACITY = 64


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


# -------------------------------- linear algebra: QR of the active rows, small least squares
class ActiveQR:
    """``D_Aᵀ = Q R`` for a changing set of active rows ``A``.

    QR rather than Cholesky on the Gram matrix: its error grows with the condition number, not
    with its square. It also gives the distance of a new row to the span to machine precision,
    which is needed to recognise dependent rows.

    ``Qᵀ`` is kept as rows of a buffer, ``R`` packed by columns (BLAS ``tp`` layout), so that
    adding a row appends to both. Memory is ``m · d_model + m²/2`` doubles.

    With ``c = Qᵀw`` and ``b = R⁻ᵀ1``:

    - ``p = R⁻¹c`` solves ``min ‖D_Aᵀp − w‖``, ``q = R⁻¹b`` solves ``(D_A D_Aᵀ) q = 1``;
    - ``rho = w − Qc`` is the part of ``w`` outside the span;
    - ``equi = Qb`` has the product 1 with every active row.

    Args:
        w: the target, ``(d_model,)``.
    """

    def __init__(self, w: Float[np.ndarray, " d_model"]) -> None:
        self.w = w
        self.m = 0
        self._q = np.empty((min(_FIRST_CAPACITY, w.size), w.size))
        self._r = np.empty(_packed(self._q.shape[0]))
        self._b = np.empty(self._q.shape[0])
        self._c = np.empty(self._q.shape[0])
        self.rho = w.copy()
        self.equi = np.zeros_like(w)

    def solve(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """``(p, q)``: coefficients on the path are ``y = μ p − q``."""
        if self.m == 0:
            return np.zeros(0), np.zeros(0)
        packed = self._r[: _packed(self.m)]
        return dtpsv(self.m, packed, self._c[: self.m]), dtpsv(self.m, packed, self._b[: self.m])

    def outside(self, rows: Float[np.ndarray, "t d_model"]) -> Float[np.ndarray, "t d_model"]:
        """The parts of ``rows`` orthogonal to the span of the active rows."""
        q = self._q[: self.m]
        rows = rows - (rows @ q.T) @ q
        return rows - (rows @ q.T) @ q

    def combination(self, row: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " m"]:
        """Weights of the active rows in the part of ``row`` that lies in their span."""
        if self.m == 0:
            return np.zeros(0)
        return dtpsv(self.m, self._r[: _packed(self.m)], self._q[: self.m] @ row)

    def append(self, row: Float[np.ndarray, " d_model"]) -> bool:
        """Add ``row`` as the last active row; False (nothing done) if it lies in the span."""
        q = self._q[: self.m]
        first = q @ row
        rest = row - first @ q
        second = q @ rest  # once more: Gram-Schmidt twice is enough
        rest -= second @ q
        distance = float(np.linalg.norm(rest))
        if self.m == self.w.size or distance <= INDEPENDENT * float(np.linalg.norm(row)):
            return False
        self._reserve(self.m + 1)
        m = self.m
        column = first + second
        self._q[m] = rest / distance
        self._r[_packed(m) : _packed(m) + m] = column
        self._r[_packed(m) + m] = distance
        self._c[m] = self._q[m] @ self.rho
        self._b[m] = (1.0 - column @ self._b[:m]) / distance
        self.rho = self.rho - self._c[m] * self._q[m]
        self.equi = self.equi + self._b[m] * self._q[m]
        self.m = m + 1
        return True

    def rebuild(self, rows: Float[np.ndarray, "m d_model"]) -> None:
        """Start again from ``rows``, which must be independent."""
        self._reserve(rows.shape[0])
        self.m = rows.shape[0]
        if self.m:
            q, r = qr(rows.T, mode="economic")
            self._q[: self.m] = q.T
            for j in range(self.m):
                self._r[_packed(j) : _packed(j + 1)] = r[: j + 1, j]
        self._refresh()

    def last(self) -> tuple[Float[np.ndarray, " d_model"], float, float]:
        """The newest column of ``Q`` and its entries of ``c`` and ``b``."""
        return self._q[self.m - 1], float(self._c[self.m - 1]), float(self._b[self.m - 1])

    def remove(self, position: int) -> None:
        """Remove the active row at ``position``; later rows move up by one."""
        m = self.m
        full = self._unpacked()
        full = np.delete(full, position, axis=1)  # upper Hessenberg from `position` on
        for i in range(position, m - 1):
            x, y = full[i, i], full[i + 1, i]
            length = float(np.hypot(x, y))
            cos, sin = (x / length, y / length) if length > 0 else (1.0, 0.0)
            drot(full[i, i:], full[i + 1, i:], cos, sin, overwrite_x=1, overwrite_y=1)
            drot(self._q[i], self._q[i + 1], cos, sin, overwrite_x=1, overwrite_y=1)
        self.m = m - 1
        for j in range(position, self.m):
            self._r[_packed(j) : _packed(j + 1)] = full[: j + 1, j]
        self._refresh()

    def _unpacked(self) -> Float[np.ndarray, "m m"]:
        full = np.zeros((self.m, self.m))
        for j in range(self.m):
            full[: j + 1, j] = self._r[_packed(j) : _packed(j + 1)]
        return full

    def _refresh(self) -> None:
        m, q = self.m, self._q[: self.m]
        self._c[:m] = q @ self.w
        rho = self.w - self._c[:m] @ q
        correction = q @ rho
        self._c[:m] += correction
        self.rho = rho - correction @ q
        if m:
            self._b[:m] = dtpsv(m, self._r[: _packed(m)], np.ones(m), trans=1)
        self.equi = self._b[:m] @ q

    def _reserve(self, m: int) -> None:
        if m <= self._q.shape[0]:
            return
        capacity = min(max(m, 2 * self._q.shape[0]), self.w.size)
        self._q = _grown(self._q, capacity)
        self._b, self._c = _grown(self._b, capacity), _grown(self._c, capacity)
        self._r = _grown(self._r, _packed(capacity))


def nonnegative_least_squares(
    matrix: Float[np.ndarray, "m n"], target: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " n"] | None:
    """``argmin_{x ≥ 0} ‖matrix x − target‖`` (Lawson and Hanson); None if it does not converge."""
    try:
        return nnls(matrix, target)[0]
    except RuntimeError:  # for finite arrays of matching shapes, nnls raises nothing else
        return None


def _packed(m: int) -> int:
    """Entries of the first ``m`` columns of a packed upper triangle."""
    return m * (m + 1) // 2


def _grown(array: Float[np.ndarray, "m ..."], length: int) -> Float[np.ndarray, "length ..."]:
    larger = np.empty((length, *array.shape[1:]))
    larger[: array.shape[0]] = array
    return larger
