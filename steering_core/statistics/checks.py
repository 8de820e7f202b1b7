"""Checks of what is fed to an accumulator; every error names the argument."""

import math

import numpy as np
from jaxtyping import Float, Int, Shaped

_INDEX, _UNSIGNED = np.dtype(np.intp), np.dtype(np.uintp)


def check_labels(labels: Shaped[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """``labels`` as finite float64 of one dimension.

    Raises:
        ValueError: if they are not.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if labels.ndim != 1:
        raise ValueError(f"labels must have one dimension, got shape {labels.shape}.")
    if not _all_finite(labels):
        raise ValueError("labels contains NaN or infinity.")
    return labels


def check_matrix(
    values: Shaped[np.ndarray, "n f"], *, n: int, n_features: int
) -> Float[np.ndarray, "n f"]:
    """``values`` as finite float64 of shape ``(n, n_features)``.

    Raises:
        ValueError: if they are not.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n, n_features):
        raise ValueError(
            f"values must have shape {(n, n_features)} (labels, n_features), got {values.shape}."
        )
    if not _all_finite(values):
        raise ValueError("values contains NaN or infinity.")
    return values


def check_csr(
    row_indptr: Int[np.ndarray, " n_plus_1"],
    indices: Int[np.ndarray, " nnz"],
    values: Shaped[np.ndarray, " nnz"],
    *,
    n: int,
    n_features: int,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " nnz"], Float[np.ndarray, " nnz"]]:
    """Row lengths, column indices and floating values of a CSR matrix ``(n, n_features)``.

    Raises:
        ValueError: if the arrays do not form such a matrix, a value is not finite, or a row names
            a feature twice.
    """
    row_indptr = _integers(row_indptr, "row_indptr")
    indices = _integers(indices, "indices")
    values = np.asarray(values)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if row_indptr.shape != (n + 1,):
        raise ValueError(
            f"row_indptr must have shape {(n + 1,)} for {n} labels, got {row_indptr.shape}."
        )
    if values.shape != indices.shape:
        raise ValueError(
            f"values and indices must be of equal length, got {values.shape} and {indices.shape}."
        )
    lengths = row_indptr[1:] - row_indptr[:-1]
    falls = np.count_nonzero(lengths < 0)
    if falls or row_indptr[0] != 0 or row_indptr[-1] != indices.size:
        raise ValueError(f"row_indptr must rise from 0 to the number of values, {indices.size}.")
    if not _all_finite(values):
        raise ValueError("values contains NaN or infinity.")
    if indices.size:
        unsigned = indices.view(_UNSIGNED)  # A negative number is a large one.
        if unsigned[unsigned.argmax()] >= n_features:
            raise ValueError(f"indices must lie in [0, {n_features}).")
        _check_distinct(row_indptr, indices, n_features)
    return lengths, indices, values


def _all_finite(values: Float[np.ndarray, "..."]) -> bool:
    # The sum of squares is finite unless a value is not, or, rarely, it overflows.
    flat = values.reshape(-1)
    return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())


def _integers(array: Shaped[np.ndarray, " n"], name: str) -> Int[np.ndarray, " n"]:
    array = np.asarray(array)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}.")
    if array.dtype == _INDEX:
        return array
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, got {array.dtype}.")
    return array.astype(np.intp)


def _check_distinct(
    row_indptr: Int[np.ndarray, " n_plus_1"], indices: Int[np.ndarray, " nnz"], n_features: int
) -> None:
    rising = np.empty(indices.size + 1, dtype=bool)
    np.greater(indices[1:], indices[:-1], out=rising[1:-1])
    rising[row_indptr] = True
    if np.count_nonzero(rising) == rising.size:
        return
    rows = np.repeat(np.arange(row_indptr.size - 1), np.diff(row_indptr))
    cells = np.sort(rows * n_features + indices)
    if (cells[1:] == cells[:-1]).any():
        raise ValueError("indices names a feature twice in one row.")
