"""The comparison of programs with fixed directions at equal norm: the table and its picture."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from steering_core.methods.solutions import PARTS
from steering_core.statistics.bootstrap import change_interval, mean_interval, share_interval
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.charts import INK, QUIET, finished, note
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.palette import method_styles
from steering_core.tables.words import is_true, readable_strength

_POINT = ["strength_name", "strength", *PARTS]


def norm_matched_table(
    rows: pd.DataFrame,
    experiment: str,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    warnings: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table ``norm_matched`` as ``columns.yaml`` describes it.

    Args:
        rows: rows of :func:`steering_core.metrics.probe_effects.norm_matched_effects` for all
            programs together. A strength without a row to compare on is left out of the table.
        experiment: name of the experiment.
        seed: seed of the bootstrap.
        n_resamples: number of bootstrap samples.
        warnings: warnings for every row.

    """
    names = column_names("norm_matched")
    if rows.empty:
        return pd.DataFrame(columns=names)
    boot = {"seed": seed, "n_resamples": n_resamples}
    table = []
    for (method, _, direction), group in rows.groupby(
        ["method", "strength_index", "direction"], sort=False
    ):
        table.append(
            {
                "experiment": experiment,
                "seed": seed,
                "method": method,
                **group.iloc[0][_POINT].to_dict(),
                "direction": direction,
                "n": len(group),
                **_cells(group, boot),
                "warnings": warnings_cell(warnings),
            }
        )
    result = pd.DataFrame(table)[names].astype(dict.fromkeys(_POINT[1:], float))
    validate_table(result, "norm_matched")
    return result


def _cells(rows: pd.DataFrame, boot: dict[str, int]) -> dict[str, Any]:
    program, direction = (
        rows[f"{name}_flipped"].to_numpy(dtype=float) for name in ("program", "direction")
    )
    norms, each = rows["norm"].to_numpy(dtype=float), np.ones_like(program)
    cells: dict[str, Any] = {}
    for name, stem, found in (
        ("residual_norm_mean", "residual_norm_ci", mean_interval(norms, **boot)),
        ("program_flip_rate", "program_flip_ci", share_interval(program, each, **boot)),
        ("direction_flip_rate", "direction_flip_ci", share_interval(direction, each, **boot)),
        ("difference", "difference_ci", change_interval(program - direction, each, **boot)),
    ):
        cells |= interval_cells(name, stem, found)
    return cells


_WIDTH, _ROW, _FAINT = 300, 24, 0.3
_STRENGTH = ["method", "strength_name", "strength"]
_ENDS = ["difference_ci_low", "difference_ci_high"]
_DRAWN = ["direction", "difference", *_ENDS, "rates", "at", "n", "selected"]
_TITLE = "share flipped: program − direction"


def norm_matched_figure(table: pd.DataFrame, pareto: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the paired difference in flips at equal norm: a panel a program, a line a direction.

    The selected strength of a program is in full colour, with its interval and the two rates beside
    it. The other strengths are faint. A program without a selected strength has faint points alone.

    Args:
        table: rows of ``norm_matched`` in ``columns.yaml``; it may be empty.
        pareto: the pareto table of the experiment: ``method``, ``strength_name``, ``strength``,
            ``selected``.

    """
    panels = _panels(table, pareto)
    if not panels:
        return finished(note("no program solved a row, so there is nothing to compare"))
    title = alt.TitleParams(
        f"{table['experiment'].iloc[0]}: programs against directions of equal norm",
        subtitle=[
            "Right of the line the program flips more test rows, left of it fewer. Numbers:",
            "flipped by program : by direction. Bars: paired bootstrap 95 % intervals.",
            "Faint: strengths that were not selected.",
        ],
        fontSize=16,
        offset=14,
    )
    return finished(alt.concat(*panels.values(), columns=2, spacing=22, title=title))


def norm_matched_panels(table: pd.DataFrame, pareto: pd.DataFrame) -> dict[str, alt.TopLevelMixin]:
    """Return the panels of :func:`norm_matched_figure` one by one, by the program's name.

    A narrow page shows them below each other.
    """
    return {method: finished(panel) for method, panel in _panels(table, pareto).items()}


def _panels(table: pd.DataFrame, pareto: pd.DataFrame) -> dict[str, alt.LayerChart]:
    if table.empty:
        return {}
    chosen = pareto.loc[is_true(pareto["selected"]), _STRENGTH].assign(selected=True)
    rows = table.merge(chosen, on=_STRENGTH, how="left", validate="many_to_one")
    rows["selected"] = is_true(rows["selected"])
    rows["rates"] = [
        f"{program:.0%} : {direction:.0%}"
        for program, direction in zip(
            rows["program_flip_rate"], rows["direction_flip_rate"], strict=True
        )
    ]
    rows["at"] = [
        readable_strength(*at) for at in zip(rows["strength_name"], rows["strength"], strict=True)
    ]
    directions = list(method_styles(rows["direction"]))
    return {
        method: _panel(rows[rows["method"] == method], method, style.colour, directions)
        for method, style in method_styles(rows["method"]).items()
    }


def _panel(rows: pd.DataFrame, method: str, colour: str, directions: list[str]) -> alt.LayerChart:
    """Draw one program against every direction."""
    at = rows.loc[rows["selected"], ["at", "n"]].drop_duplicates()
    told = f"{at['at'].iloc[0]}, {at['n'].iloc[0]:g} rows" if len(at) else "no strength selected"
    up = alt.Y("direction:N", title=None, sort=directions, axis=alt.Axis(grid=True, labelLimit=150))
    across = alt.X(
        "difference:Q",
        title=_TITLE,
        scale=alt.Scale(domain=[-1, 1], nice=False),
        axis=alt.Axis(values=[-1, -0.5, 0, 0.5, 1], format=".1f"),
    )
    source = alt.Chart(rows[[*_DRAWN]]).encode(y=up)
    chosen = source.transform_filter("datum.selected")
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=QUIET, strokeDash=[4, 3])
    layers = [
        zero.encode(x="zero:Q"),
        source.transform_filter("!datum.selected")
        .mark_circle(size=36, opacity=_FAINT, color=colour)
        .encode(x=across, tooltip=["direction", "at", "difference", "rates", "n"]),
        chosen.mark_rule(strokeWidth=2, color=colour).encode(
            x=alt.X("difference_ci_low:Q", title=_TITLE), x2="difference_ci_high"
        ),
        chosen.mark_circle(size=90, opacity=1, color=colour).encode(
            x=across, tooltip=["direction", "at", "difference", "rates", "n"]
        ),
        chosen.mark_text(dy=-9, fontSize=10, color=INK).encode(x=across, text="rates:N"),
    ]
    return alt.layer(*layers).properties(
        title=alt.TitleParams(method, subtitle=told),
        width=_WIDTH,
        height=(_ROW + 8) * len(directions),
    )
