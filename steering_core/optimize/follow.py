"""Grows the path in blocks of events, each verified on the full dictionary."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.homotopy import FLAT, DegeneratePathError, Homotopy, Knot
from steering_core.optimize.knots import Knots

_BLOCK = 32  # events between two products with the full dictionary
_WORKING = 1024  # columns among which the first events are searched
_SAME = 1e-13  # knots whose relative distance is below this count as one
_ROUNDING = 4 * np.finfo(float).eps  # a smaller relative difference of products is zero

Row = tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]
Columns = Int[np.ndarray, " m"]


class Follower:
    """Grows the knots of a path.

    Args:
        dictionary: the decoder.
        w: probe weight, ``(d_model,)``.
        knots: where to continue; by default at the beginning.

    Attributes:
        knots: all knots so far. :meth:`block` replaces the object and does not change it.
    """

    def __init__(
        self, dictionary: Dictionary, w: Float[np.ndarray, " d_model"], knots: Knots | None = None
    ) -> None:
        self._dictionary = dictionary
        self._a = dictionary.price(w)
        self._bound = float(np.abs(self._a).max())
        self._distinct = dictionary.distinct()
        if knots is None:
            flat = FLAT * dictionary.norms * float(np.linalg.norm(w))
            top = float(self._a.max(initial=0.0, where=self._a > flat))
            knots = _origin(w.size, 1.0 / top if top > 0 else np.inf)
        self.knots = knots
        mu = float(knots.mu[-1]) if knots.s.size > 1 else 0.0
        self._engine = Homotopy(dictionary, w, self._a, mu, knots.active)
        self._working = _WORKING
        self._stuck: DegeneratePathError | None = None

    @property
    def stuck(self) -> bool:
        """Whether too many events happened at one price: :meth:`block` goes no further."""
        return self._stuck is not None

    def block(self) -> None:
        """Append the next block of verified knots, and the ray if the path ends.

        Raises:
            DegeneratePathError: after too many events at one price; earlier knots are kept.
        """
        if self._stuck is not None:
            raise self._stuck
        engine, columns = self._engine, self._promising()
        while True:
            before = (engine.mu, tuple(engine.active))
            engine.work_on(columns)
            found, stuck = self._events()
            good, missed = self._keep(found, columns)
            last = (found[good - 1].mu, found[good - 1].active) if good else before
            self.knots = replace(self.knots, active=np.array(last[1], dtype=np.int64))
            if good == len(found) and engine.ray is not None:
                missed = np.flatnonzero(self._outside(columns, engine.rising() > 0))
            if missed.size == 0:
                self._end(stuck)
                return
            engine.restart(*last)
            if good:
                return
            columns = np.union1d(columns, missed)

    def _keep(self, found: list[Knot], columns: Columns) -> tuple[int, Columns]:
        """Append the events found on ``columns`` up to the first that fails on the full dictionary.

        Returns:
            How many were appended, and the columns that should have entered before the next one.
        """
        rows = [(knot.indices, knot.values) for knot in found]
        v, s = self._products(rows)
        mu = np.array([knot.mu for knot in found])
        excess = self._excess(v, mu, 1.0)
        missed = self._outside(columns, excess > 1e-10 + 1e-14 * mu * self._bound)
        good = int(np.flatnonzero([*missed.any(axis=0), True])[0])
        self._append(rows[:good], v[:good], s[:good], mu[:good], excess[:, :good])
        if good == len(found):
            return good, np.zeros(0, dtype=np.int64)
        self._working *= 2  # too few columns were searched
        return good, np.flatnonzero(missed[:, good])

    def _end(self, stuck: DegeneratePathError | None) -> None:
        """Append the ray if the path ended; raise ``stuck`` if it cannot be continued."""
        if self._engine.ray is not None:
            self._append_ray()
        elif stuck is not None:
            self._stuck = stuck
            raise stuck

    def _events(self) -> tuple[list[Knot], DegeneratePathError | None]:
        """The next events, and the error that stopped them if the path is stuck."""
        found: list[Knot] = []
        try:
            while len(found) < _BLOCK and (knot := self._engine.step()) is not None:
                found.append(knot)
        except DegeneratePathError as error:
            return found, error
        return found, None

    def _promising(self) -> Columns:
        """The columns that would enter first; the next events are searched among them."""
        if self._distinct.size <= 2 * self._working:
            return self._distinct
        price = self._engine.next_price()[self._distinct]
        return np.sort(self._distinct[np.argpartition(price, self._working)[: self._working]])

    def _outside(
        self, columns: Columns, chosen: Bool[np.ndarray, "d_sae *knots"]
    ) -> Bool[np.ndarray, "d_sae *knots"]:
        """``chosen`` without zero rows, copies and ``columns``."""
        mask = np.zeros(chosen.shape, dtype=bool)
        others = np.setdiff1d(self._distinct, columns)
        mask[others] = chosen[others]
        return mask

    def _products(
        self, rows: list[Row]
    ) -> tuple[Float[np.ndarray, "b d_model"], Float[np.ndarray, " b"]]:
        """``v = Dᵀy`` and ``s = aᵀy`` of sparse y."""
        used = np.unique(np.concatenate([index for index, _ in rows] or [[]])).astype(int)
        dense = np.zeros((len(rows), used.size))
        for i, (index, values) in enumerate(rows):
            dense[i, np.searchsorted(used, index)] = values
        return dense @ self._dictionary.rows(used), dense @ self._a[used]

    def _excess(
        self, v: Float[np.ndarray, "b d_model"], mu: Float[np.ndarray, " b"], cost: float
    ) -> Float[np.ndarray, "d_sae b"]:
        """``μ a − D v − cost``: dual violation where positive."""
        return self._a[:, None] * mu - self._dictionary.price(v) - cost

    def _append(
        self,
        rows: list[Row],
        v: Float[np.ndarray, "b d_model"],
        s: Float[np.ndarray, " b"],
        mu: Float[np.ndarray, " b"],
        excess: Float[np.ndarray, "d_sae b"],
    ) -> None:
        """Append knots, without those at the position of the knot before them."""
        keep, last = [], float(self.knots.s[-1])
        for i in range(len(rows)):
            if s[i] > last * (1 + _SAME):
                keep.append(i)
                last = float(s[i])
        if keep:
            self.knots = replace(
                _with_rows(self.knots, [rows[i] for i in keep], v[keep], mu[keep], excess[:, keep]),
                s=np.concatenate([self.knots.s, s[keep]]),
            )

    def _append_ray(self) -> None:
        """Append the last segment as slopes per unit of s."""
        ray = self._engine.ray
        positive = ray.slope > 0
        rows = [(ray.indices[positive], ray.slope[positive])]
        v, s = self._products(rows)
        rows = [(rows[0][0], rows[0][1] / s[0])]
        v, mu = v / s[0], 1.0 / s
        excess = self._excess(v, mu, 0.0)
        # Along the ray a violation grows with s, so only rounding error may be set to zero: a few
        # ulp of the terms that are summed, μ a_j and y_i d_jᵀd_i.
        norms, (used, values) = self._dictionary.norms, rows[0]
        terms = np.abs(self._a) * mu + norms * float(values @ norms[used])
        excess[excess <= _ROUNDING * terms[:, None]] = 0.0
        self.knots = _with_rows(self.knots, rows, v, mu, excess)


def _origin(d_model: int, mu: float) -> Knots:
    """The first knot, ``y = 0``; ``mu`` is the price at which the first feature enters."""
    empty = np.zeros(0, dtype=np.int64)
    return Knots(
        s=np.zeros(1),
        mu=np.array([mu]),
        l1=np.zeros(1),
        violation=np.zeros(1),
        v=np.zeros((1, d_model)),
        indptr=np.zeros(2, dtype=np.int64),
        indices=empty,
        values=np.zeros(0),
        active=empty,
    )


def _with_rows(
    knots: Knots,
    rows: list[Row],
    v: Float[np.ndarray, "b d_model"],
    mu: Float[np.ndarray, " b"],
    excess: Float[np.ndarray, "d_sae b"],
) -> Knots:
    """``knots`` with rows (knots or the ray) appended to every array except ``s``."""
    order = [np.argsort(index) for index, _ in rows]
    counts = np.array([index.size for index, _ in rows])
    return replace(
        knots,
        mu=np.concatenate([knots.mu, mu]),
        l1=np.concatenate([knots.l1, [values.sum() for _, values in rows]]),
        violation=np.concatenate([knots.violation, np.maximum(excess.max(axis=0), 0.0)]),
        v=np.concatenate([knots.v, v]),
        indptr=np.concatenate([knots.indptr, knots.indptr[-1] + np.cumsum(counts)]),
        indices=np.concatenate(
            [knots.indices, *(index[o] for (index, _), o in zip(rows, order, strict=True))]
        ).astype(np.int64),
        values=np.concatenate(
            [knots.values, *(values[o] for (_, values), o in zip(rows, order, strict=True))]
        ),
    )
