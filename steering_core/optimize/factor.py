"""Linear algebra of the path: a QR factorisation of the active rows, and small least squares."""

import numpy as np
from jaxtyping import Float
from scipy.linalg import qr
from scipy.linalg.blas import drot, dtpsv
from scipy.optimize import nnls

INDEPENDENT = 1e-6  # a row whose relative distance to the span is below this lies inside it
_FIRST_CAPACITY = 64


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
