"""The table ``variants``, a row per (variant, program, parameter), and its picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from steering_core.methods.solutions import SOLVED
from steering_core.statistics.bootstrap import mean_interval, ratio_interval, share_interval
from steering_core.tables.caveats import warnings_cell
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
from steering_core.tables.columns import interval_cells, tables, validate_table

_COUNTED = {
    "optimal": "n_optimal",
    "already_satisfied": "n_satisfied",
    "infeasible": "n_infeasible",
    "inaccurate": "n_inaccurate",
    "failed": "n_failed",
}


#: Quantities in which a variant is compared with the plain program, input by input.
_COMPARED = ("objective", "l1", "residual_norm")


def variant_table(
    rows: pd.DataFrame,
    experiment: str,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    warnings: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table ``variants`` as ``columns.yaml`` describes it.

    Args:
        rows: rows of :func:`steering_core.methods.variants.solve_variants`; ``path`` must be among
            the variants.
        experiment: name of the experiment.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap samples.
        warnings: warnings for every row.

    Raises:
        ValueError: if ``path`` is missing, or a status is unknown.
    """
    described = tables()["variants"]
    names = described.names
    if rows.empty:
        return pd.DataFrame(columns=names)
    if "path" not in set(rows["variant"]):
        raise ValueError("rows: the variant path is missing; the others are compared with it")
    if unknown := set(rows["status"]) - set(_COUNTED):
        raise ValueError(f"rows: unknown statuses {sorted(unknown)}")
    plain = rows[rows["variant"] == "path"]
    boot = {"seed": seed, "n_resamples": n_resamples}
    table = []
    for (variant, program, parameter), group in rows.groupby(list(described.key), sort=False):
        same = (plain["program"] == program) & (plain["parameter"] == parameter)
        table.append(
            {
                "experiment": experiment,
                "variant": variant,
                "program": program,
                "tau": group["tau"].iloc[0],
                "tau_model": group["tau_model"].iloc[0],
                "parameter": parameter,
                "parameter_model": group["parameter_model"].iloc[0],
                "n": len(group),
                **{name: int((group["status"] == key).sum()) for key, name in _COUNTED.items()},
                **_sizes(group[_solved(group)], boot),
                **_ratios(group, plain[same], boot),
                **_work(group),
                **_flips(group, boot),
                "warnings": warnings_cell(warnings),
            }
        )
    result = pd.DataFrame(table)[names]
    validate_table(result, "variants")
    return result


def _solved(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin(SOLVED)


def _sizes(solved: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for name in ("objective", "l0", "l1", "residual_norm"):
        interval = mean_interval(solved[name].to_numpy(dtype=float), **boot)
        columns |= interval_cells(f"{name}_mean", f"{name}_ci", interval)
    return columns


def _ratios(rows: pd.DataFrame, plain: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    """Return sums divided by those of the plain program, over the inputs that both solved."""
    mine, theirs = (
        frame[_solved(frame)].set_index("example_id")[list(_COMPARED)] for frame in (rows, plain)
    )
    both = mine.index.intersection(theirs.index, sort=False)
    cells: dict[str, float] = {"n_paired": len(both)}
    for name in _COMPARED:
        pair = (frame.loc[both, name].to_numpy() for frame in (mine, theirs))
        cells |= interval_cells(f"{name}_ratio", f"{name}_ratio_ci", ratio_interval(*pair, **boot))
    return cells


def _work(rows: pd.DataFrame) -> dict[str, Any]:
    worked = rows[rows["status"].isin(["optimal", "inaccurate"])]
    used = worked.loc[worked["inner"] != "", "inner"].value_counts(sort=False).sort_index()
    return {
        "relative_gap_max": rows["relative_gap"].max(),
        "dual_violation_max": rows["dual_violation"].max(),
        "iterations_mean": worked["iterations"].mean(),
        "rounds_mean": worked["rounds"].mean(),
        "inner_solvers": ", ".join(f"{name} {count}" for name, count in used.items()) or None,
    }


def _flips(rows: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    outside = rows[rows["eval_probe_base"] <= 0]
    flipped = (outside["eval_probe_steered"] > 0).to_numpy(dtype=float)  # NaN counts as not flipped
    rate = share_interval(flipped, np.ones_like(flipped), **boot)
    return interval_cells("eval_flip_rate", "eval_flip_ci", rate)


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
