"""Shared by all pictures: style, axes, placement of labels, and saving."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.storage.files import atomic_path, write_text

WIDTH, HEIGHT = 300, 270
AXIS_PADDING = 10  # pixels; keeps a marker at 0 off the other axis
INK, QUIET = "#222222", "#666666"
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_FORMATS = ("svg", "png", "html")


def finished(
    chart: alt.TopLevelMixin, legend_columns: int = 5, legend_size: int = 13
) -> alt.TopLevelMixin:
    """Return ``chart`` on white, with the shared fonts, axes and a legend below.

    A legend that is wider than its chart makes the chart small where the width is given.

    Args:
        chart: with its marks and titles.
        legend_columns: of the legend.
        legend_size: of its text, in pixels.
    """
    return (
        chart.configure(background="white", font=_FONT, padding=12)
        .configure_view(stroke="#cccccc")
        .configure_axis(
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
            titlePadding=8,
            gridColor="#eeeeee",
            labelColor=INK,
            titleColor=INK,
            labelFlush=False,  # else the first and the last label stand beside their ticks
        )
        .configure_title(
            fontSize=14, anchor="start", color=INK, subtitleFontSize=12, subtitleColor=QUIET
        )
        .configure_legend(
            orient="bottom",
            columns=legend_columns,
            labelFontSize=legend_size,
            labelLimit=260,
            symbolSize=110,
            symbolOpacity=1,
            columnPadding=22,
            offset=14,
        )
    )


def note(text: str) -> alt.Chart:
    """Return a panel with a text instead of a chart: why there is nothing to draw.

    It is as wide as the text in a wide font.
    """
    return (
        alt.Chart(pd.DataFrame({"note": [text]}))
        .mark_text(fontSize=12, color=QUIET)
        .encode(text="note:N")
        .properties(width=8 * len(text), height=40)
    )


def spread_axis(values: pd.Series) -> dict[str, alt.Scale | alt.Axis]:
    """Return scale and axis of non-negative values: linear, or symmetric log if they span decades.

    The symmetric log is linear below the smallest positive value and shows 0, which a log axis
    cannot.
    """
    positive = values[values > 0]
    if positive.empty or positive.max() < 30 * positive.min():
        top = 1.05 * float(positive.max()) if len(positive) else 1.0
        scale = alt.Scale(domain=[0.0, top], nice=False, padding=AXIS_PADDING)
        return {"scale": scale, "axis": alt.Axis(tickCount=6)}
    low = 10.0 ** np.floor(np.log10(positive.min()))
    high = 10.0 ** np.ceil(np.log10(positive.max()))
    decades = np.arange(round(np.log10(low)), round(np.log10(high)) + 1)
    ticks = [0.0, *(float(f"1e{int(power)}") for power in decades)]
    top = float(positive.max()) * 1.15
    scale = alt.Scale(
        type="symlog", constant=float(low), domain=[0.0, top], nice=False, padding=AXIS_PADDING
    )
    return {
        "scale": scale,
        "axis": alt.Axis(values=[tick for tick in ticks if tick <= top], format=",~r"),
    }


def log_axis(values: pd.Series) -> dict[str, alt.Scale | alt.Axis]:
    """Return a log scale and axis for positive values, with ticks at 1 and 3 of each decade."""
    low, high = 0.7 * float(values.min()), 1.4 * float(values.max())
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 3)]
    return {
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
        "axis": alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format=",~r"),
    }


def save_chart(chart: alt.TopLevelMixin, path: str | Path) -> None:
    """Write ``chart`` to ``path`` (.svg, .png or .html), atomically and byte-reproducibly.

    It needs no network: the HTML contains the scripts it runs.

    Raises:
        ValueError: for another suffix.

    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise ValueError(f"cannot save a chart as {path}: use one of {', '.join(_FORMATS)}.")
    if kind == "png":
        with atomic_path(path) as temporary:
            chart.save(str(temporary), format="png", scale_factor=2)
        return
    if kind == "svg":
        write_text(path, svg_text(chart))
        return
    buffer = io.StringIO()
    chart.save(buffer, format="html", inline=True)
    write_text(path, buffer.getvalue())


def svg_text(chart: alt.TopLevelMixin) -> str:
    """Return ``chart`` as SVG, the same for the same chart."""
    buffer = io.StringIO()
    chart.save(buffer, format="svg")
    return _renumbered(buffer.getvalue())


def _renumbered(svg: str) -> str:
    """Return ``svg`` with element ids counted from 1; the renderer keeps counting across charts."""
    ids = re.findall(r'\bid="((?:clip|gradient_)\d+)"', svg)
    new = {old: f"id{number}" for number, old in enumerate(dict.fromkeys(ids), start=1)}
    return re.sub(
        r'(\bid="|url\(#)((?:clip|gradient_)\d+)',
        lambda match: match[1] + new.get(match[2], match[2]),
        svg,
    )


_GAP = 1.0  # pixels between two labels
_CLEAR, _REACH = 6.0, 7.0  # pixels from a label to the centre of any marker, and of its own marker
_LABEL_SIZE = 10
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
    """Return where a Vega scale puts ``values``, in pixels from the start of its axis.

    Args:
        values: in the unit of the axis.
        low: start of the scale's domain.
        high: end of the scale's domain.
        length: length of the axis, in pixels.
        padding: padding of the scale at each end, in pixels.
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

    A label is tried on eight sides of its point, the upper left first. Sides where it would leave
    the panel or overlap an earlier label are skipped. Of the others it takes the one that covers
    the fewest ``marks``. If no side is left, the label is left out.

    Args:
        points: positions in pixels, y downward; the most important points first.
        texts: the labels, as :func:`label_layers` draws them.
        marks: centres of markers, or points of lines, that labels should not cover.
        frame: width and height of the panel, pixels.

    Returns:
        Centre of each label relative to its point, in pixels; NaN for a label left out.
    """
    offsets = np.full((len(points), 2), np.nan)
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (point, text) in enumerate(zip(points, texts, strict=True)):
        size = np.array([len(text) * _LETTER, 1.1]) * _LABEL_SIZE
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
        labels: the columns of ``x`` and ``y``, ``label``, and ``dx`` and ``dy`` (the two columns
            of :func:`label_places`). Labels left out there are not drawn.
        x: encoding of the points.
        y: encoding of the points.
    """
    placed = labels.dropna(subset=["dx", "dy"])
    if placed.empty:
        return []
    text = alt.Chart(placed).encode(x, y, text="label:N")
    shift = {"dx": alt.expr("datum.dx"), "dy": alt.expr("datum.dy"), "fontSize": _LABEL_SIZE}
    # Draw a halo first, because a label may lie on a line.
    return [
        text.mark_text(stroke="white", strokeWidth=3, **shift),
        text.mark_text(color=INK, **shift),
    ]
