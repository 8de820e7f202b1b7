"""Where the labels of points go in a picture, so that no two stand on each other."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.tables.charts import INK

_GAP = 1.0  # pixels between two labels
_CLEAR, _REACH = 6.0, 7.0  # pixels from a label to the centre of a marker, and of its own
_FONT = 10
_LETTER = 0.67  # width of a character of a share such as 86%, in units of the font size
_SIDES = ((-1, -1), (0, -1), (-1, 0), (1, -1), (1, 0), (0, 1), (-1, 1), (1, 1))


def pixels(
    values: Shaped[np.ndarray, " n"],
    low: float,
    high: float,
    length: float,
    *,
    padding: float = 0.0,
    symlog: float | None = None,
) -> Float[np.ndarray, " n"]:
    """Where a Vega scale puts ``values``, in pixels from the start of its axis.

    Args:
        values: in the unit of the axis.
        low: start of the scale's domain.
        high: its end.
        length: of the axis, in pixels.
        padding: of the scale, in pixels at either end.
        symlog: the constant of a symmetric log scale; None for a linear one.
    """

    def along(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return x if symlog is None else np.sign(x) * np.log1p(np.abs(x) / symlog)

    start, end = along(np.float64(low)), along(np.float64(high))
    span = end - start if end > start else 1.0
    share = (along(np.asarray(values, dtype=np.float64)) - start) / span
    return padding + share * (length - 2 * padding)


def label_places(
    points: Float[np.ndarray, "n 2"],
    texts: Sequence[str],
    marks: Float[np.ndarray, "m 2"],
    frame: tuple[float, float],
) -> Float[np.ndarray, "n 2"]:
    """Find a place for the label of each point, the first points first.

    A label is tried on eight sides of its point, the upper left first. It takes the side that
    covers the fewest ``marks``, of those where it meets no label placed before and stays in the
    panel. Without such a side it is left out.

    Args:
        points: in pixels, y downward; the most important first.
        texts: the labels, as :func:`label_layers` draws them.
        marks: centres of the markers, or points of the lines, better not written over.
        frame: width and height of the panel, pixels.

    Returns:
        Centre of each label relative to its point, pixels; NaN for a label left out.
    """
    offsets = np.full((len(points), 2), np.nan)
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (point, text) in enumerate(zip(points, texts, strict=True)):
        size = np.array([len(text) * _LETTER, 1.1]) * _FONT
        best, fewest = None, np.inf
        for side in _SIDES:
            offset = np.array(side) * (size / 2 + _REACH)
            centre = point + offset
            if (centre < size / 2).any() or (centre + size / 2 > frame).any():
                continue
            if any((np.abs(centre - at) < (size + other) / 2 + _GAP).all() for at, other in taken):
                continue
            covered = (np.abs(marks - centre) < size / 2 + _CLEAR).all(axis=1).sum()
            if covered < fewest:
                best, fewest = offset, covered
        if best is not None:
            offsets[number] = best
            taken.append((point + best, size))
    return offsets


def label_layers(labels: pd.DataFrame, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Draw the column ``label`` beside its points.

    Args:
        labels: with the columns of ``x`` and ``y``, ``label``, and ``dx`` and ``dy``, the two
            columns of :func:`label_places`; those left out there are not drawn.
        x: encoding of the points.
        y: likewise.
    """
    placed = labels.dropna(subset=["dx", "dy"])
    if placed.empty:
        return []
    text = alt.Chart(placed).encode(x, y, text="label:N")
    shift = {"dx": alt.expr("datum.dx"), "dy": alt.expr("datum.dy"), "fontSize": _FONT}
    # A halo first: a label may stand on a line.
    return [
        text.mark_text(stroke="white", strokeWidth=3, **shift),
        text.mark_text(color=INK, **shift),
    ]
