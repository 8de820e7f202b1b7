"""What every picture shares: its look, axes that reach zero, and how it is saved."""

import io
import re
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from steering_core.storage.atomic import atomic_path, write_text

WIDTH, HEIGHT = 300, 270
AXIS_PADDING = 10  # pixels, so that a marker at 0 does not stand on the other axis
INK, QUIET = "#222222", "#666666"
_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
_FORMATS = ("svg", "png", "html")


def finished(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """``chart`` on white, with the shared fonts, axes and a legend below."""
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
        )
        .configure_axisY(labelFlush=True)
        .configure_title(
            fontSize=14, anchor="start", color=INK, subtitleFontSize=12, subtitleColor=QUIET
        )
        .configure_legend(
            orient="bottom",
            columns=5,
            labelFontSize=13,
            labelLimit=260,
            symbolSize=110,
            symbolOpacity=1,
            columnPadding=22,
            offset=14,
        )
    )


def note(text: str) -> alt.Chart:
    """Make a panel that says in words why there is nothing to draw."""
    return (
        alt.Chart(pd.DataFrame({"note": [text]}))
        .mark_text(fontSize=12, color=QUIET)
        .encode(text="note:N")
    )


def spread_axis(values: pd.Series) -> dict[str, alt.Scale | alt.Axis]:
    """Scale and axis for non-negative values: linear, or symmetric log if they span decades.

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
    """Logarithmic scale and axis for positive values, with ticks at 1 and 3 of each decade."""
    low, high = 0.7 * float(values.min()), 1.4 * float(values.max())
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 3)]
    return {
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
        "axis": alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format=",~r"),
    }


def save_chart(chart: alt.TopLevelMixin, path: str | Path) -> None:
    """Write ``chart`` to ``path`` (.svg, .png or .html), atomically and byte-reproducibly.

    Needs no network; the HTML holds the scripts it runs.

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
    buffer = io.StringIO()
    if kind == "html":
        chart.save(buffer, format="html", inline=True)
        write_text(path, buffer.getvalue())
    else:
        chart.save(buffer, format="svg")
        write_text(path, _renumbered(buffer.getvalue()))


def _renumbered(svg: str) -> str:
    """``svg`` with its element ids counted from 1: the renderer counts on from chart to chart."""
    ids = re.findall(r'\bid="((?:clip|gradient_)\d+)"', svg)
    new = {old: f"id{number}" for number, old in enumerate(dict.fromkeys(ids), start=1)}
    return re.sub(
        r'(\bid="|url\(#)((?:clip|gradient_)\d+)',
        lambda match: match[1] + new.get(match[2], match[2]),
        svg,
    )
