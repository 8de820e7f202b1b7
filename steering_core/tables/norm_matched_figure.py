"""The picture of programs against fixed directions at equal norm."""

import altair as alt
import pandas as pd

from steering_core.tables.charts import INK, QUIET, finished, note
from steering_core.tables.palette import method_styles
from steering_core.tables.words import is_true, readable_strength

_WIDTH, _ROW, _FAINT = 300, 24, 0.3
_POINT = ["method", "strength_name", "strength"]
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
    chosen = pareto.loc[is_true(pareto["selected"]), _POINT].assign(selected=True)
    rows = table.merge(chosen, on=_POINT, how="left", validate="many_to_one")
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
