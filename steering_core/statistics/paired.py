"""Changes of success between two runs over the same examples, paired by example id."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped
from scipy.stats import binomtest

from steering_core.errors import DataError
from steering_core.statistics.bootstrap import Interval, share_interval

#: The significance level of every test. Below this p-value of McNemar's test a change of success
#: counts as more than noise. A few changes of one sign leave 0 out of a bootstrap interval, where
#: this exact test does not yet tell.
LEVEL = 0.05


@dataclass(frozen=True)
class SuccessChanges:
    """Counts of examples by success before and after.

    Attributes:
        negative: success before, failure after.
        positive: failure before, success after.
        kept_success: success both times.
        kept_failure: failure both times.
    """

    negative: int
    positive: int
    kept_success: int
    kept_failure: int

    @property
    def n_changed(self) -> int:
        """Number of examples whose success changed."""
        return self.negative + self.positive

    @property
    def side_effect_ratio(self) -> float | None:
        """Return SER = negative / (negative + positive); None if nothing changed."""
        return self.negative / self.n_changed if self.n_changed else None

    @property
    def mcnemar_p_value(self) -> float:
        """Return the two-sided p-value of McNemar's exact test; 1 if nothing changed.

        Under the null hypothesis a change is negative or positive with probability one half.
        """
        return sign_test(np.repeat([-1.0, 1.0], [self.negative, self.positive]))

    def side_effect_interval(
        self, *, seed: int, confidence: float = 0.95, n_resamples: int = 2000
    ) -> Interval:
        """Return the SER with its interval over the ``n`` examples that changed.

        The interval is a bootstrap interval, or the exact one if all changes have the same sign.
        """
        negative = np.repeat([1.0, 0.0], [self.negative, self.positive])
        return share_interval(
            negative,
            np.ones_like(negative),
            seed=seed,
            confidence=confidence,
            n_resamples=n_resamples,
        )


def sign_test(changes: Shaped[np.ndarray, " n"]) -> float:
    """Return the two-sided p-value of the exact sign test of ``n`` changes; 1 if all are 0.

    Under the null hypothesis a change other than 0 is negative or positive with probability one
    half. For changes of success of one run this is McNemar's exact test.
    """
    negative, positive = int((changes < 0).sum()), int((changes > 0).sum())
    if negative + positive == 0:
        return 1.0
    return float(binomtest(negative, negative + positive, 0.5).pvalue)


def success_changes(
    before: Shaped[np.ndarray, " n"], after: Shaped[np.ndarray, " n"]
) -> SuccessChanges:
    """Count how an intervention changes the success of examples.

    Args:
        before: success without the intervention, booleans or 0 and 1.
        after: success with it, for the same examples in the same order (:func:`positions_after`).

    Raises:
        ValueError: if a value is neither true nor false, or if the lengths differ.
    """
    first, second = _boolean(before, "before"), _boolean(after, "after")
    if first.shape != second.shape:
        raise ValueError(f"before has {len(first)} examples and after {len(second)}: pair them.")
    return SuccessChanges(
        negative=int((first & ~second).sum()),
        positive=int((~first & second).sum()),
        kept_success=int((first & second).sum()),
        kept_failure=int((~first & ~second).sum()),
    )


def positions_after(before_ids: Sequence[Hashable], after_ids: Sequence[Hashable]) -> list[int]:
    """Return the position of each example before in the list of examples after.

    Args:
        before_ids: ids of the examples of one side.
        after_ids: ids of the same examples on the other side, in any order.

    Raises:
        DataError: if the two sides have different examples, or if an example is repeated.
    """
    position, wanted = _positions(after_ids, "after"), _positions(before_ids, "before")
    if wanted.keys() != position.keys():
        lost = [id_ for id_ in wanted if id_ not in position]
        new = [id_ for id_ in position if id_ not in wanted]
        raise DataError(
            f"examples do not pair up: {len(lost)} only before {lost[:3]}, {len(new)} only after "
            f"{new[:3]}. Run both sides on the same examples."
        )
    return [position[id_] for id_ in wanted]


def _positions(ids: Sequence[Hashable], side: str) -> dict[Hashable, int]:
    ids = list(ids)
    position = {id_: index for index, id_ in enumerate(ids)}
    if len(position) != len(ids):
        twice = next(id_ for index, id_ in enumerate(ids) if position[id_] != index)
        raise DataError(f"example {twice!r} occurs more than once {side}: pass each example once.")
    return position


def _boolean(values: Shaped[np.ndarray, " n"], name: str) -> Bool[np.ndarray, " n"]:
    values = np.asarray(values, dtype=np.float64)
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError(f"{name} must hold only true and false (1 and 0).")
    return values.astype(bool)
