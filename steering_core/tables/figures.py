"""The figures beside the Pareto frontier: layer sweep, exact frontier of the programs, variants."""

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from steering_core.tables.charts import (
    AXIS_PADDING,
    HEIGHT,
    INK,
    QUIET,
    WIDTH,
    finished,
    label_layers,
    label_places,
    log_axis,
    note,
    pixels,
    spread_axis,
)

_ACCENT, _SECOND = "#0072B2", "#D55E00"
_SWEEP_SCALE = alt.Scale(zero=False, nice=False, padding=14)


def sweep_figure(df: pd.DataFrame, used: int) -> alt.HConcatChart:
    """Draw the layer sweep: cross-validated probe accuracy, and SAE-concept alignment, per layer.

    Args:
        df: columns ``layer``, ``accuracy`` and ``accuracy_std`` (share, over folds),
            ``alignment`` (a squared cosine), ``picked`` (bool).
        used: layer of the experiment, picked or configured.

    """
    df = df.assign(used=df["layer"] == used)
    accuracy = df.assign(
        low=(df["accuracy"] - df["accuracy_std"]).clip(lower=0.0),
        high=(df["accuracy"] + df["accuracy_std"]).clip(upper=1.0),
    )
    band = (
        alt.Chart(accuracy)
        .mark_area(opacity=0.18, color=_ACCENT)
        .encode(
            _layer_axis(df),
            alt.Y("low:Q", title="probe accuracy (share), ± 1 SD over folds", scale=_SWEEP_SCALE),
            alt.Y2("high"),
        )
    )
    panels = [
        band + _curve(accuracy, "accuracy", "probe accuracy (share), ± 1 SD over folds", _ACCENT),
        _curve(df, "alignment", "alignment with the concept, cos²", _SECOND),
    ]
    titles = ("Can a probe read the concept?", "Is there a feature for it?")
    chosen = ", ".join(str(layer) for layer in df.loc[df["picked"].astype(bool), "layer"])
    subtitle = f"used: layer {used}; the sweep would pick {chosen or 'none'}"
    sized = [
        panel.properties(
            title=alt.TitleParams(title, subtitle=subtitle), width=1.4 * WIDTH, height=HEIGHT
        )
        for panel, title in zip(panels, titles, strict=True)
    ]
    return finished(alt.hconcat(*sized, spacing=30))


def _layer_axis(df: pd.DataFrame) -> alt.X:
    step = max(1, round(len(df) / 14))
    ticks = [int(layer) for layer in sorted(df["layer"])[::step]]
    return alt.X(
        "layer:Q", title="layer", axis=alt.Axis(values=ticks, format="d"), scale=_SWEEP_SCALE
    )


def _curve(df: pd.DataFrame, column: str, title: str, colour: str) -> alt.LayerChart:
    """Draw ``column`` by layer, with a vertical line at the layer used."""
    x, marked = _layer_axis(df), alt.Chart(df[df["used"]])
    y = alt.Y(column, type="quantitative", title=title, scale=_SWEEP_SCALE)
    base = alt.Chart(df)
    return alt.layer(
        marked.mark_rule(strokeDash=[6, 4], color=QUIET).encode(x),
        base.mark_line(color=colour, strokeWidth=2).encode(x, y),
        base.mark_point(color=colour, filled=True, size=45, opacity=1).encode(x, y),
        marked.mark_point(color=colour, filled=True, size=130, opacity=1, stroke="black").encode(
            x, y
        ),
    )


_PROGRAM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ([1, 0], [7, 5], [2, 3], [10, 3])
_MOST_LABELS = 8
_UNSOLVED = ("n_infeasible", "n_inaccurate", "n_failed")
_PADDING = 20
_PADDED = alt.Scale(zero=False, nice=False, padding=_PADDING)
_WIDE = 1.2 * WIDTH
_HELD = {"tau": "τ", "qp": "λ", "socp": "ε"}


def frontier_figure(df: pd.DataFrame, grid: pd.DataFrame | None = None) -> alt.TopLevelMixin:
    """Draw the programs' exact frontier, with the points of a sweep on it.

    Two panels show ‖Dᵀδ‖ against L1 and against L0. Along a curve either the margin or the
    program's parameter is fixed, whichever has fewer values. There is one curve for each program
    and fixed value. If a program has several curves, they are labelled with this value where there
    is room. If the parameter is fixed, a third panel shows the cost of the margin in L1.

    Args:
        df: columns ``experiment``, ``program``, ``parameter`` (λ or ε), ``l0``, ``l1``,
            ``residual_norm``, ``tau`` (the margin, probe logits); one row per point of the curves.
            Without rows the picture shows a note.
        grid: the same columns for the points of a sweep, with the counts ``n_infeasible``,
            ``n_inaccurate`` and ``n_failed``, or None. A point is hollow if some row had no
            certified solution, and not drawn if no row had one.

    """
    if df.empty:
        return finished(note("the sweep had no program to solve, or nothing to do for one"))
    programs = sorted(df["program"].unique())
    held = _held_fixed(df)
    other = "tau" if held == "parameter" else "parameter"
    curves = df.sort_values(["program", held, other], kind="stable")
    curves = curves.assign(
        # Join the rows of a curve in this order, not in the order of the x axis.
        place=range(len(curves)),
        curve=curves["program"] + " " + curves[held].astype(str),
        label=(pd.Series("tau", curves.index) if held == "tau" else curves["program"]).map(_HELD)
        + "="
        + curves[held].map("{:g}".format),
    )
    norm = ("residual_norm", "norm added to the residual stream, ‖Dᵀδ‖")
    l1, l0 = ("l1", "L1 of δ"), ("l0", "features changed, L0")
    axes = [(norm, l1), (norm, l0)]
    if held == "parameter":
        axes.append((("tau", "margin (probe logits)"), l1))
    labelled = 1 < curves["label"].nunique() <= _MOST_LABELS
    # The curves of a program meet in L0, so labels would collide there.
    panels = [_program_panel(curves, grid, programs, x, y, labelled and y is l1) for x, y in axes]
    about = "Curves: the exact path. Points: the settings that ran; hollow: some rows had no "
    about += "certified solution."
    if labelled:
        about += (
            " τ: the margin (probe logits)." if held == "tau" else " λ, ε: the program's parameter."
        )
    title = alt.TitleParams(
        f"{curves['experiment'].iloc[0]}: what the two programs can reach, exactly",
        subtitle=f"Means over test rows. {about}",
        fontSize=17,
        offset=14,
    )
    return finished(alt.hconcat(*panels, spacing=30, title=title))


def _held_fixed(df: pd.DataFrame) -> str:
    counts = df.groupby("program")[["parameter", "tau"]].nunique().max()
    return "tau" if counts["tau"] <= counts["parameter"] else "parameter"


def _program_panel(
    curves: pd.DataFrame,
    grid: pd.DataFrame | None,
    programs: list[str],
    x: tuple[str, str],
    y: tuple[str, str],
    labelled: bool,
) -> alt.LayerChart:
    """Draw column ``y`` against column ``x``, each given as (name, axis title)."""
    legend = alt.Legend(symbolType="stroke", symbolSize=500, symbolStrokeWidth=3)
    # The programs share one path, so the later curve is dashed to keep the earlier one visible.
    colour, dash = (
        {"field": "program", "type": "nominal", "title": None, "legend": legend, "scale": scale}
        for scale in (
            alt.Scale(domain=programs, range=list(_PROGRAM_COLOURS[: len(programs)])),
            alt.Scale(domain=programs, range=list(_DASHES[: len(programs)])),
        )
    )
    across = alt.X(x[0], type="quantitative", title=x[1], scale=_PADDED)
    up = alt.Y(y[0], type="quantitative", title=y[1], scale=_PADDED)
    layers = [
        alt.Chart(curves)
        .mark_line(strokeWidth=2.2)
        .encode(
            across,
            up,
            alt.Color(**colour),
            alt.StrokeDash(**dash),
            detail="curve:N",
            order="place:Q",
        )
    ]
    if grid is not None and grid[[x[0], y[0]]].notna().all(axis=1).any():
        told = ["program", "parameter", "tau", "l0", "l1", "residual_norm", *_UNSOLVED]
        unsolved = " + ".join(f"datum.{name}" for name in _UNSOLVED)
        points = alt.Chart(grid.dropna(subset=[x[0], y[0]])).encode(
            across, up, alt.Color(**colour), tooltip=told
        )
        look = {"size": 65, "opacity": 1}
        layers += [
            points.transform_filter(f"{unsolved} == 0").mark_point(
                filled=True, stroke="black", strokeWidth=0.8, **look
            ),
            points.transform_filter(f"{unsolved} > 0").mark_point(
                filled=False, fill="white", strokeWidth=1.6, **look
            ),
        ]
    if labelled:
        layers += label_layers(_labels(curves, grid, x[0], y[0]), across, up)
    return alt.layer(*layers).properties(width=_WIDE, height=HEIGHT)


def _labels(curves: pd.DataFrame, grid: pd.DataFrame | None, x: str, y: str) -> pd.DataFrame:
    """Return the labels at the upper ends of the curves, with their places."""
    drawn = pd.concat([curves[[x, y]], *([] if grid is None else [grid[[x, y]]])])
    low, high = drawn.min(), drawn.max()
    across = pixels(drawn[x], low[x], high[x], _WIDE, padding=_PADDING)
    up = pixels(drawn[y], low[y], high[y], HEIGHT, padding=_PADDING)
    marks = np.column_stack([across, HEIGHT - up])
    ordered = curves.assign(mark=range(len(curves))).sort_values(y, kind="stable")
    tops = ordered.drop_duplicates("label", keep="last").iloc[::-1]
    shift = label_places(marks[tops["mark"]], list(tops["label"]), marks, (_WIDE, HEIGHT))
    return tops[["label", x, y]].assign(dx=shift[:, 0], dy=shift[:, 1])


# Shades of a program's colour, one per parameter; they repeat if there are more parameters.
_VARIANT_COLOURS = {
    "qp": ("#0072B2", "#56A0D3", "#003B5C"),
    "socp": ("#D55E00", "#F0A070", "#7A3600"),
}
_LINE = 14  # pixels between the points of a variant
_SHAPES = {"qp": "circle", "socp": "square"}


@dataclass(frozen=True)
class _Panel:
    """A panel: a mean with its interval, a reference value, and whether the mean is a share."""

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
    """Draw a variant table of one experiment: one row per variant, one panel per quantity.

    The panels are the objective relative to the plain program, L0, ‖Dᵀδ‖ and the flip rate of the
    evaluation probe. Each has one point per program and parameter, with a bootstrap 95 % interval.

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
    panels = [_variant_panel(rows, series, panel, first=panel is _PANELS[0]) for panel in _PANELS]
    title = alt.TitleParams(
        f"{df['experiment'].iloc[0]}: what a variant of the programs costs and saves",
        subtitle=f"At most {df['n'].max()} test rows that start outside the target class. "
        "Bars: bootstrap 95 % intervals. Dashed: the plain program.",
        fontSize=17,
        offset=14,
    )
    return finished(alt.hconcat(*panels, spacing=26, title=title))


def _variant_panel(
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
        # Put the numbers in a column outside the panel, away from the bars and the dashed line.
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
    """Return colour and marker of each series; its name begins with the program's name."""
    colours, shapes = [], []
    for place, name in enumerate(series):
        program = name.split()[0]
        before = sum(other.split()[0] == program for other in series[:place])
        colours.append(_VARIANT_COLOURS[program][before % len(_VARIANT_COLOURS[program])])
        shapes.append(_SHAPES[program])
    return colours, shapes
