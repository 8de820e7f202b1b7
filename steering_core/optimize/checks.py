"""Checks of the arguments of the optimiser: each failure is a ValueError naming the argument."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float


def as_float64(name: str, value: Any, ndim: int) -> Float[np.ndarray, "..."]:
    """``value`` (numpy, torch or nested sequence) as a C-contiguous finite float64 array.

    An array that has this form already is returned without a copy.

    Raises:
        ValueError: naming ``name``, if the number of dimensions differs from ``ndim``, the array
            is empty, or a value is not a finite number.
    """
    array = as_numbers(name, value)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), not shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"{name} is empty.")
    if not all(np.isfinite(rows).all() for rows in _chunks(array)):
        raise ValueError(f"{name} holds NaN or infinite values.")
    return array


def as_numbers(name: str, value: Any) -> Float[np.ndarray, "..."]:
    """``value``, of any shape, as a C-contiguous float64 array, without a copy where possible.

    Raises:
        ValueError: naming ``name``, for ragged sequences and values that are not real numbers.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.numpy() if value.is_complex() else value.to(torch.float64).numpy()
    try:
        array = np.asarray(value)
        if np.iscomplexobj(array):
            raise TypeError("they are complex")
        return np.asarray(array, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error


def as_vector(name: str, value: Any) -> Float[np.ndarray, " n"]:
    """``value``, a number or a vector, as a finite float64 vector; a number gives one.

    Raises:
        ValueError: naming ``name``, if it is neither, or not finite. An empty vector is allowed.
    """
    array = as_numbers(name, value)
    if array.ndim == 1 and array.size == 0:
        return np.zeros(0)
    return as_float64(name, array.reshape(1) if array.ndim == 0 else array, 1)


def as_directions(directions: Any, d_model: int) -> Float[np.ndarray, "k d_model"]:
    """``(k, d_model)`` or ``(d_model,)`` as a finite float64 matrix.

    Raises:
        ValueError: naming ``directions``.
    """
    directions = as_numbers("directions", directions)
    directions = as_float64("directions", directions, min(max(directions.ndim, 1), 2))
    directions = np.atleast_2d(directions)
    if directions.shape[1] != d_model:
        raise ValueError(f"directions must be (k, {d_model}), not {directions.shape}.")
    return directions


def positive(name: str, value: Any, zero: bool = False) -> Float[np.ndarray, " n"]:
    """``value`` as by :func:`as_vector`, every entry > 0 (with ``zero``: >= 0).

    Raises:
        ValueError: naming ``name``.
    """
    vector = as_vector(name, value)
    if (vector < 0).any() or (not zero and (vector == 0).any()):
        raise ValueError(f"{name} must be {'>= 0' if zero else '> 0'}, not {vector.min():g}.")
    return vector


def as_number(name: str, value: Any) -> float:
    """``value`` as a float; it may be infinite or NaN.

    Raises:
        ValueError: naming ``name``, if it is not a single real number.
    """
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, not {value!r}.")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a number, not {value!r}.") from error


def not_negative(name: str, value: Any) -> float:
    """``value`` as a number >= 0, infinity included.

    Raises:
        ValueError: naming ``name``.
    """
    number = as_number(name, value)
    if not number >= 0:
        raise ValueError(f"{name} must be >= 0, not {value!r}.")
    return number


def tolerated(tolerance: Any) -> float:
    """``tolerance`` as a number >= 0; infinity tolerates everything.

    Raises:
        ValueError: naming ``tolerance``.
    """
    return not_negative("tolerance", tolerance)


def at_least(name: str, value: Any, least: int) -> int:
    """``value`` as an integer of ``least`` or more.

    Raises:
        ValueError: naming ``name``.
    """
    number = as_number(name, value)
    if not number >= least or not number.is_integer():
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}.")
    return int(number)


def match(name: str, vector: Float[np.ndarray, " m"], n: int) -> Float[np.ndarray, " n"]:
    """``vector`` of length ``n``, or of length 1 repeated to it without a copy.

    Raises:
        ValueError: naming ``name``, for any other length.
    """
    if vector.shape[0] not in (1, n):
        raise ValueError(f"{name} has {vector.shape[0]} values for {n} inputs: give one or {n}.")
    return np.broadcast_to(vector, (n,))


def _chunks(
    array: Float[np.ndarray, "n ..."], rows: int = 1024
) -> list[Float[np.ndarray, "rows ..."]]:
    return [array[start : start + rows] for start in range(0, array.shape[0], rows)]
