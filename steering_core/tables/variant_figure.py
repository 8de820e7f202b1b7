"""The variants of the programs side by side, drawn."""

from dataclasses import dataclass

import altair as alt
import pandas as pd

from steering_core.tables.charts import (
    AXIS_PADDING,
    HEIGHT,
    INK,
    QUIET,
    WIDTH,
    finished,
    log_axis,
    note,
    spread_axis,
)

# Shades of a program's colour, for as many parameters; then they repeat.
_COLOURS = {"qp": ("#0072B2", "#56A0D3", "#003B5C"), "socp": ("#D55E00", "#F0A070", "#7A3600")}
_LINE = 14  # pixels between the points of a variant
_SHAPES = {"qp": "circle", "socp": "square"}


@dataclass(frozen=True)
class _Panel:
    """A mean with its interval, a value of reference, and whether it is a share."""

    column: str
    interval: str
    title: str
    reference: float | None = None
    share: bool = False


_PANELS = (
    _Panel("objective_ratio", "objective_ratio_ci", "objective, by that of path (log scale)", 1.0),
    _Panel("l0_mean", "l0_ci", "features changed, L0"),
    _Panel("residual_norm_mean", "residual_norm_ci", "norm added, ‖Dᵀδ‖"),
    _Panel("eval_flip_rate", "eval_flip_ci", "flipped, by evaluation probe (share)", share=True),
)


def variant_figure(df: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw a variant table of one experiment: a row per variant, a panel per quantity.

    Objective relative to the plain program, L0, ‖Dᵀδ‖ and the evaluation probe's flip rate, with
    bootstrap 95 % intervals, a point per program and parameter.

    Args:
        df: the columns of ``variants`` in ``columns.yaml``; may be empty.
    """
    if df.empty:
        return finished(note("no test row starts outside the target class"))
    solved = (df["n_optimal"] + df["n_satisfied"]).astype(str)
    rows = df.assign(
        solved=solved + " of " + df["n"].astype(str),
        series=[
            f"{program} {'λ' if program == 'qp' else 'ε'}={parameter:g}"
            for program, parameter in zip(df["program"], df["parameter"], strict=True)
        ],
    )
    series = list(rows["series"].unique())
    panels = [_panel(rows, series, panel, first=panel is _PANELS[0]) for panel in _PANELS]
    title = alt.TitleParams(
        f"{df['experiment'].iloc[0]}: what a variant of the programs costs and saves",
        subtitle=f"At most {df['n'].max()} test rows that start outside the target class. "
        "Bars: bootstrap 95 % intervals. Dashed: the plain program.",
        fontSize=17,
        offset=14,
    )
    return finished(alt.hconcat(*panels, spacing=26, title=title))


def _panel(
    rows: pd.DataFrame, series: list[str], panel: _Panel, *, first: bool
) -> alt.Chart | alt.LayerChart:
    low, high = f"{panel.interval}_low", f"{panel.interval}_high"
    order = list(rows["variant"].unique())
    height = max(HEIGHT, _LINE * len(order) * (len(series) + 1))
    frame = {"width": 0.8 * WIDTH, "height": height}
    shown = rows.dropna(subset=[panel.column])
    if shown.empty:
        return note("no input was solved").properties(**frame)
    colours, shapes = _styles(series)
    ends = pd.concat([shown[name] for name in (panel.column, low, high)])
    if panel.share:
        options = {"scale": alt.Scale(domain=[0, 1], padding=AXIS_PADDING, nice=False)}
    elif panel.reference is not None and (ends > 0).all():
        options = log_axis(ends)
    else:
        options = spread_axis(ends)
    across = alt.X(panel.column, type="quantitative", title=panel.title, **options)
    labels = {} if first else {"axis": alt.Axis(labels=False, ticks=False)}
    up = alt.Y("variant:N", title=None, scale=alt.Scale(domain=order), **labels)
    beside = alt.YOffset("series:N", scale=alt.Scale(domain=["", *series, " "]))
    colour = alt.Color("series:N", title=None, scale=alt.Scale(domain=series, range=colours))
    shape = alt.Shape("series:N", title=None, scale=alt.Scale(domain=series, range=shapes))
    base = alt.Chart(shown)
    layers = [
        base.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            alt.X(low, type="quantitative"), alt.X2(high), up, beside, colour
        ),
        base.mark_point(filled=True, size=75, opacity=1, stroke="white", strokeWidth=0.4).encode(
            across, up, beside, colour, shape, tooltip=["variant", "series", "solved", panel.column]
        ),
    ]
    if panel.reference is not None:
        # In a column outside the panel, clear of the bars and of the dashed line.
        value = alt.Text(panel.column, type="quantitative", format=".3f")
        layers.append(
            base.transform_filter("datum.variant != 'path'")
            .mark_text(align="left", dx=6, dy=1, fontSize=10, color=INK)
            .encode(up, beside, x=alt.value(0.8 * WIDTH), text=value)
        )
        reference = alt.Chart(pd.DataFrame({"at": [panel.reference]}))
        layers.insert(
            0,
            reference.mark_rule(strokeDash=[6, 4], color=QUIET, strokeWidth=1.3).encode(x="at:Q"),
        )
    return alt.layer(*layers).properties(**frame)


def _styles(series: list[str]) -> tuple[list[str], list[str]]:
    """Colour and marker of each series, which begins with the name of its program."""
    colours, shapes = [], []
    for place, name in enumerate(series):
        program = name.split()[0]
        before = sum(other.split()[0] == program for other in series[:place])
        colours.append(_COLOURS[program][before % len(_COLOURS[program])])
        shapes.append(_SHAPES[program])
    return colours, shapes
