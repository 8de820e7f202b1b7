"""The exact frontier of the convex programs, drawn."""

import altair as alt
import numpy as np
import pandas as pd

from steering_core.tables.charts import HEIGHT, WIDTH, finished, note
from steering_core.tables.label_places import label_layers, label_places, pixels

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ([1, 0], [7, 5], [2, 3], [10, 3])
_MOST_LABELS = 8
_UNSOLVED = ("n_infeasible", "n_inaccurate", "n_failed")
_PADDING = 20
_PADDED = alt.Scale(zero=False, nice=False, padding=_PADDING)
_WIDE = 1.2 * WIDTH
_HELD = {"tau": "τ", "qp": "λ", "socp": "ε"}


def frontier_figure(df: pd.DataFrame, grid: pd.DataFrame | None = None) -> alt.TopLevelMixin:
    """Draw the programs' exact frontier, with the points of a sweep on it.

    Two panels, ‖Dᵀδ‖ against L1 and against L0. A curve is drawn for each program and each value
    of what is held fixed along it: the margin or the program's parameter, whichever takes fewer
    values; several curves of a program are labelled with that value, as far as there is room. If it
    is the parameter that is held, a third panel shows what the margin costs in L1.

    Args:
        df: columns ``experiment``, ``program``, ``parameter`` (λ or ε), ``l0``, ``l1``,
            ``residual_norm``, ``tau`` (the margin, probe logits), a row per point of the curves;
            none gives a picture that says so.
        grid: the same columns for the points of a sweep, with the counts ``n_infeasible``,
            ``n_inaccurate`` and ``n_failed``, or None. A point at which some row had no certified
            solution is hollow; without any it has no place.

    """
    if df.empty:
        return finished(note("the sweep had no program to solve, or nothing to do for one"))
    programs = sorted(df["program"].unique())
    held = _held_fixed(df)
    other = "tau" if held == "parameter" else "parameter"
    curves = df.sort_values(["program", held, other], kind="stable")
    curves = curves.assign(
        # Along a curve the rows are joined in this order, not in that of the x axis.
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
    # Curves of one program meet in L0, so labels would collide there.
    panels = [_panel(curves, grid, programs, x, y, labelled and y is l1) for x, y in axes]
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


def _panel(
    curves: pd.DataFrame,
    grid: pd.DataFrame | None,
    programs: list[str],
    x: tuple[str, str],
    y: tuple[str, str],
    labelled: bool,
) -> alt.LayerChart:
    """Column ``y`` against column ``x``, each given as (name, axis title)."""
    legend = alt.Legend(symbolType="stroke", symbolSize=500, symbolStrokeWidth=3)
    # The programs share one path, so the later curve is dashed to leave the earlier one visible.
    colour, dash = (
        {"field": "program", "type": "nominal", "title": None, "legend": legend, "scale": scale}
        for scale in (
            alt.Scale(domain=programs, range=list(_COLOURS[: len(programs)])),
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
    """What stands beside the upper ends of the curves, and where."""
    drawn = pd.concat([curves[[x, y]], *([] if grid is None else [grid[[x, y]]])])
    low, high = drawn.min(), drawn.max()
    across = pixels(drawn[x], low[x], high[x], _WIDE, padding=_PADDING)
    up = pixels(drawn[y], low[y], high[y], HEIGHT, padding=_PADDING)
    marks = np.column_stack([across, HEIGHT - up])
    ordered = curves.assign(mark=range(len(curves))).sort_values(y, kind="stable")
    tops = ordered.drop_duplicates("label", keep="last").iloc[::-1]
    shift = label_places(marks[tops["mark"]], list(tops["label"]), marks, (_WIDE, HEIGHT))
    return tops[["label", x, y]].assign(dx=shift[:, 0], dy=shift[:, 1])
