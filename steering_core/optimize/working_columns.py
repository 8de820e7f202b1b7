"""The columns a working set has taken in, and the price of all the others."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from steering_core.optimize.active_set import Program
from steering_core.optimize.dictionary import Dictionary

_AT_CAP = 1e-9  # a coefficient this near (relative) to its cap is at it


@dataclass(frozen=True)
class Certificate:
    """What the reduced costs of the full dictionary say about multipliers.

    Attributes:
        shrink: ``1 + ϑ``: the multipliers divided by it are feasible for the dual.
        capped: what the caps then cost in the dual.
        violation: worst violation of a column that is not at its cap.
    """

    shrink: float
    capped: float
    violation: float


class WorkingColumns:
    """Columns ``±d_i``: id ``i`` turns feature i up, id ``d_sae + i`` turns it down.

    Args:
        dictionary: the decoder.
        directions: ``W``, ``(k, d_model)``.
    """

    def __init__(self, dictionary: Dictionary, directions: Float[np.ndarray, "k d_model"]) -> None:
        self._dictionary, self.directions = dictionary, directions
        self.gains = dictionary.price(directions).T.copy()  # (k, d_sae): margins of a feature
        self.ids = np.zeros(0, dtype=np.int64)
        self.rows = np.zeros((0, dictionary.d_model))
        self.gram = np.zeros((0, 0))

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self._dictionary.d_sae

    @property
    def margins(self) -> Float[np.ndarray, "k n"]:
        """What a unit of each column adds to each margin."""
        return self._signs * self.gains[:, self.ids % self.d_sae]

    @property
    def _signs(self) -> Float[np.ndarray, " n"]:
        return np.where(self.ids < self.d_sae, 1.0, -1.0)

    def add(self, ids: Int[np.ndarray, " m"]) -> int:
        """Take columns in, those not there yet; returns how many."""
        ids = np.setdiff1d(ids, self.ids)
        if ids.size:
            new = self._dictionary.rows(ids % self.d_sae)
            new *= np.where(ids < self.d_sae, 1.0, -1.0)[:, None]
            cross = new @ self.rows.T
            self.gram = np.block([[self.gram, cross.T], [cross, new @ new.T]])
            self.rows = np.concatenate([self.rows, new])
            self.ids = np.concatenate([self.ids, ids])
        return ids.size

    def keep_best(
        self, costs: Float[np.ndarray, " columns"], x: Float[np.ndarray, " n"], most: int
    ) -> None:
        """Forget the dearest unused columns if there are more than ``most``, down to half."""
        if self.ids.size <= most:
            return
        order = np.argsort(np.where(x > 0, -np.inf, costs[self.ids]), kind="stable")
        mask = np.zeros(self.ids.size, dtype=bool)
        mask[order[: max(most // 2, int((x > 0).sum()))]] = True
        self.ids, self.rows = self.ids[mask], self.rows[mask]
        self.gram = self.gram[np.ix_(mask, mask)]

    def program(self, caps: Float[np.ndarray, " columns"]) -> Program:
        """The program on these columns; ``caps`` are of all ``2 d_sae`` ids."""
        return Program(self.gram, self.margins, caps[self.ids])

    def reduced_costs(
        self, nu: Float[np.ndarray, " d_model"], mu: Float[np.ndarray, " k"], cost: float = 1.0
    ) -> Float[np.ndarray, " columns"]:
        """``cost + e_jᵀν − μᵀa_j`` of every column of the full dictionary, both signs."""
        product = self._dictionary.price(nu - mu @ self.directions)
        return np.concatenate([cost + product, cost - product])

    def certify(
        self,
        costs: Float[np.ndarray, " columns"],
        caps: Float[np.ndarray, " columns"],
        x: np.ndarray,
    ) -> Certificate:
        """Certificate of multipliers with these reduced costs.

        A column without a cap that violates by ϑ is made feasible by dividing the multipliers by
        ``1 + ϑ``; a capped one costs its cap times its violation.
        """
        short = np.maximum(-costs, 0.0)
        free = np.isinf(caps)
        theta = float(short[free].max(initial=0.0))
        finite = ~free & (caps > 0)
        capped = float(caps[finite] @ np.maximum(-(costs[finite] + theta), 0.0)) / (1.0 + theta)
        usable = caps > 0
        usable[self.ids[x >= caps[self.ids] * (1.0 - _AT_CAP)]] = False
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

    def delta(self, x: Float[np.ndarray, " n"]) -> sparse.csr_array:
        """δ of coefficients of these columns, ``(1, d_sae)``."""
        used = x > 0
        columns = self.ids[used] % self.d_sae
        values = x[used] * self._signs[used]
        out = sparse.coo_array(
            (values, (np.zeros(columns.size, dtype=np.int64), columns)), shape=(1, self.d_sae)
        ).tocsr()
        out.eliminate_zeros()
        return out
