"""The columns of a working set, and the reduced costs of all the others."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.homotopy import FLAT
from steering_core.optimize.working_set.active_set import Program

_AT_CAP = 1e-9  # a coefficient this close (relative) to its cap is at it


@dataclass(frozen=True)
class Certificate:
    """How far multipliers are from dual feasibility on the full dictionary.

    Attributes:
        shrink: ``1 + ϑ``: the multipliers divided by it are feasible for the dual.
        capped: dual cost of the caps after that division.
        violation: worst violation of a column that is not at its cap.
    """

    shrink: float
    capped: float
    violation: float


class WorkingColumns:
    """Columns ``±d_i``: id ``i`` turns feature i up, id ``d_sae + i`` turns it down.

    Internally columns have unit length and cost ``unit / ‖d_i‖``, so solvers see the same numbers
    whatever the scale of the rows. Reduced costs are relative to the cost of their column, so they
    equal those of the rows as given.

    Args:
        dictionary: the decoder.
        directions: ``W``, ``(k, d_model)``.

    Attributes:
        unit: median length of a row, the unit of costs.
        lengths: ``‖d_i‖``, one for a zero row, ``(d_sae,)``.
        gains: what a column of unit length adds to each margin, ``(k, d_sae)``.
        ids: of the columns in the working set, as are ``rows`` and ``gram``.
    """

    def __init__(self, dictionary: Dictionary, directions: Float[np.ndarray, "k d_model"]) -> None:
        self._dictionary, self.directions = dictionary, directions
        norms = dictionary.norms
        self.unit = float(np.median(norms[norms > 0])) if norms.any() else 1.0
        self.lengths = np.where(norms > 0, norms, 1.0)
        gains = dictionary.price(directions).T / self.lengths
        noise = FLAT * np.linalg.norm(directions, axis=1)[:, None]
        self.gains = np.where(np.abs(gains) > noise, gains, 0.0)
        self.ids = np.zeros(0, dtype=np.int64)
        self.rows = np.zeros((0, dictionary.d_model))
        self.gram = np.zeros((0, 0))

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self._dictionary.d_sae

    @property
    def margins(self) -> Float[np.ndarray, "k n"]:
        """What each column adds to each margin."""
        return self._signs * self.gains[:, self.ids % self.d_sae]

    @property
    def _signs(self) -> Float[np.ndarray, " n"]:
        return np.where(self.ids < self.d_sae, 1.0, -1.0)

    def add(self, ids: Int[np.ndarray, " m"]) -> int:
        """Add the columns that are not there yet; returns how many."""
        ids = np.setdiff1d(ids, self.ids)
        if ids.size:
            new = self._dictionary.rows(ids % self.d_sae)
            new *= np.where(ids < self.d_sae, 1.0, -1.0)[:, None]
            new /= self.lengths[ids % self.d_sae, None]
            cross = new @ self.rows.T
            self.gram = np.block([[self.gram, cross.T], [cross, new @ new.T]])
            self.rows = np.concatenate([self.rows, new])
            self.ids = np.concatenate([self.ids, ids])
        return ids.size

    def keep_best(
        self, costs: Float[np.ndarray, " columns"], x: Float[np.ndarray, " n"], most: int
    ) -> None:
        """If there are more than ``most`` columns, drop those of highest reduced cost, to half."""
        if self.ids.size <= most:
            return
        order = np.argsort(np.where(x > 0, -np.inf, costs[self.ids]), kind="stable")
        mask = np.zeros(self.ids.size, dtype=bool)
        mask[order[: max(most // 2, int((x > 0).sum()))]] = True
        self._keep(mask)

    def keep_first(self, n: int) -> None:
        """Drop all but the first n columns."""
        self._keep(np.arange(self.ids.size) < n)

    def _keep(self, mask: Bool[np.ndarray, " n"]) -> None:
        self.ids, self.rows = self.ids[mask], self.rows[mask]
        self.gram = self.gram[np.ix_(mask, mask)]

    def caps(self, caps: Float[np.ndarray, " columns"]) -> Float[np.ndarray, " n"]:
        """Caps of these columns, given caps of the coefficients of all ``2 d_sae`` ids."""
        return caps[self.ids] * self.lengths[self.ids % self.d_sae]

    def program(self, caps: Float[np.ndarray, " columns"], costly: bool = True) -> Program:
        """The program on these columns; if not ``costly``, its costs are zero: the least norm."""
        cost = self.unit / self.lengths[self.ids % self.d_sae]
        return Program(self.gram, self.margins, self.caps(caps), cost if costly else 0.0 * cost)

    def reduced_costs(
        self, nu: Float[np.ndarray, " d_model"], mu: Float[np.ndarray, " k"]
    ) -> Float[np.ndarray, " columns"]:
        """``1 + (e_jᵀν − μᵀa_j) / cost_j`` of every column of the full dictionary, both signs."""
        product = self._dictionary.price(nu - mu @ self.directions) / self.unit
        return np.concatenate([1.0 + product, 1.0 - product])

    def slopes(
        self, nu: Float[np.ndarray, " d_model"], mu: Float[np.ndarray, " k"]
    ) -> Float[np.ndarray, " columns"]:
        """``e_jᵀν − μᵀa_j`` of every column (of unit length) of the full dictionary."""
        product = self._dictionary.price(nu - mu @ self.directions) / self.lengths
        return np.concatenate([product, -product])

    def certify(
        self,
        costs: Float[np.ndarray, " columns"],
        caps: Float[np.ndarray, " columns"],
        x: Float[np.ndarray, " n"],
    ) -> Certificate:
        """Certificate of multipliers with these reduced costs.

        A column without a cap that violates by ϑ is made feasible by dividing the multipliers by
        ``1 + ϑ``. A capped column costs its cap times its violation, per ``unit``.

        Args:
            costs: from :meth:`reduced_costs`.
            caps: of the coefficients, all ids.
            x: of these columns.
        """
        short = np.maximum(-costs, 0.0)
        free = np.isinf(caps)
        theta = float(short[free].max(initial=0.0))
        finite = ~free & (caps > 0)
        capped = float(caps[finite] @ np.maximum(-(costs[finite] + theta), 0.0)) / (1.0 + theta)
        usable = caps > 0
        usable[self.ids[x >= self.caps(caps) * (1.0 - _AT_CAP)]] = False
        return Certificate(1.0 + theta, capped, float(short[usable].max(initial=0.0)))

    def promising(
        self,
        costs: Float[np.ndarray, " columns"],
        caps: Float[np.ndarray, " columns"],
        limit: float,
        n: int,
    ) -> Int[np.ndarray, " m"]:
        """Up to n usable columns outside whose reduced cost is below ``limit``, worst first."""
        costs = np.where(caps > 0, costs, np.inf)
        costs[self.ids] = np.inf
        worst = np.argpartition(costs, min(n, costs.size - 1))[:n]
        return worst[costs[worst] < limit]

    def delta(
        self, x: Float[np.ndarray, " n"], caps: Float[np.ndarray, " columns"]
    ) -> sparse.csr_array:
        """δ for coefficients x of these columns, ``(1, d_sae)``, clipped at the caps."""
        used = x > 0
        columns = self.ids[used] % self.d_sae
        values = np.minimum(x[used] / self.lengths[columns], caps[self.ids[used]])
        values *= self._signs[used]
        out = sparse.coo_array(
            (values, (np.zeros(columns.size, dtype=np.int64), columns)), shape=(1, self.d_sae)
        ).tocsr()
        out.eliminate_zeros()
        return out
