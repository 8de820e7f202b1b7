"""The programs' frontier: the path's curves, the sweep's points, the knots, and their picture."""

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.config.methods import is_program, mode_of, parameter_of, program_of
from steering_core.methods.solutions import solved
from steering_core.optimize.frontier import curves, unit_frontier
from steering_core.optimize.path import SteeringPath
from steering_core.tables.charts import (
    HEIGHT,
    WIDTH,
    finished,
    label_layers,
    label_places,
    note,
    pixels,
)
from steering_core.tables.columns import column_names, validate_table

_MEANS = ("l1", "l0", "residual_norm", "objective")


def program_frontier(path: SteeringPath, solutions: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the frontier at every margin of the sweep, as ``columns.yaml`` describes it.

    Args:
        path: path of the experiment; only its fitted range is used.
        solutions: rows of ``solutions/*.parquet`` for the inputs to average over. The table is
            empty if no program is among them.
        experiment: name of the experiment.
    """
    # Declared programs may have their margin on another logit than that of this path.
    of_path = solutions[solutions["method"].map(is_program).astype(bool)]
    margins = np.unique(of_path["tau"].to_numpy(dtype=float))
    parts = {
        "curve": curves(path, logits_of(solutions), margins),
        "sweep": grid_points(solutions),
    }
    table = pd.concat(
        [
            rows.assign(experiment=experiment, point=name)
            for name, rows in parts.items()
            if len(rows)
        ]
        or [pd.DataFrame()]
    ).reindex(columns=column_names("frontier"))
    table = table.assign(**_in_model_units(table, of_path))
    validate_table(table, "frontier")
    return table.reset_index(drop=True)


def _in_model_units(table: pd.DataFrame, solutions: pd.DataFrame) -> dict[str, pd.Series]:
    """Return margin and parameter of each row in units of the model, which the solutions know."""
    known = solutions[["tau", "lam", "epsilon"]].to_numpy(dtype=float)
    model = solutions[["tau_model", "lam_model", "epsilon_model"]].to_numpy(dtype=float)
    ratio = pd.DataFrame(model / known, columns=["tau", "qp", "socp"]).median()  # all are equal
    # λ is an inverse norm, and ε a norm, so one of the two tells both.
    norm = ratio["qp"] if pd.notna(ratio["qp"]) else 1 / ratio["socp"]
    by_program = table["program"].map({"qp": norm, "socp": 1 / norm}).astype(float)
    return {
        "tau_model": table["tau"] * ratio["tau"],
        "parameter_model": table["parameter"] * by_program,
    }


def knot_table(path: SteeringPath, experiment: str) -> pd.DataFrame:
    """Return the table ``frontier_knots``: each knot of the fitted range, per unit of shortfall."""
    table = unit_frontier(path).assign(experiment=experiment)
    table = table[column_names("frontier_knots")]
    validate_table(table, "frontier_knots")
    return table


def logits_of(solutions: pd.DataFrame) -> Float[np.ndarray, " n"]:
    """Return the probe's logit of every input, computed from the shortfalls of a program.

    The result is empty if the sweep ran no program that is solved for each input.
    """
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if is_program(method) and mode_of(method) != "shared":
            return (group["tau"] - group["shortfall"]).to_numpy()
    return np.zeros(0)


def grid_points(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return the sweep's own points as rows of :func:`steering_core.optimize.frontier.frontier`.

    Only programs that are solved once for each input are included. Means are over the inputs with a
    certified solution, and NaN if there is none. If ``n_infeasible``, ``n_inaccurate`` or
    ``n_failed`` is not 0, the curves average over more inputs than the point.
    """
    rows = []
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if not is_program(method) or mode_of(method) != "static":
            continue
        program = program_of(method)
        has = group[solved(group)]
        reached = has["tau"] - has["shortfall"] + has["shortfall"].clip(lower=0)
        rows.append(
            {
                "program": program,
                "tau": group["tau"].iloc[0],
                "parameter": group[parameter_of(program)].iloc[0],
                **has[list(_MEANS)].mean().to_dict(),
                "margin": reached.mean(),
                "n_solved": len(has),
                "n_satisfied": int((group["status"] == "already_satisfied").sum()),
                **{
                    f"n_{status}": int((group["status"] == status).sum())
                    for status in ("infeasible", "inaccurate", "failed")
                },
            }
        )
    return pd.DataFrame(rows)


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
