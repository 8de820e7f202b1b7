"""Accumulate a stored stream of features."""

from collections.abc import Iterable, Mapping

import numpy as np
import scipy.sparse as sp

from steering_core.errors import DataError
from steering_core.statistics.correlation import StreamingCorrelation


def correlate(
    batches: Iterable[tuple[list[str], sp.csr_matrix]], labels: Mapping[str, float]
) -> StreamingCorrelation:
    """Accumulate the rows of ``batches`` whose id has a label; one pass, one batch in memory.

    Args:
        batches: pairs of example ids and features (n, d_sae), as the feature reader yields them.
        labels: label of each example that counts.

    Raises:
        DataError: if a labelled example does not occur in the stream exactly once.
    """
    accumulator: StreamingCorrelation | None = None
    waiting = set(labels)
    for names, features in batches:
        if accumulator is None:
            accumulator = StreamingCorrelation(features.shape[1])
        rows = [i for i, name in enumerate(names) if name in labels]
        if rows:
            found = {names[i] for i in rows}
            if len(found) < len(rows) or not found <= waiting:
                raise DataError("an example has features twice: delete them and run again.")
            waiting -= found
            chosen = features[rows]
            accumulator.update_sparse(
                chosen.indptr,
                chosen.indices,
                chosen.data,
                np.array([labels[names[i]] for i in rows], dtype=np.float64),
            )
    if accumulator is None or waiting:
        raise DataError(
            f"{len(labels)} labelled examples, {len(labels) - len(waiting)} of them have features."
        )
    return accumulator
