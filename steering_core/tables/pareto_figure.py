"""The picture of effect against cost."""

from dataclasses import dataclass

import altair as alt
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.tables.charts import (
    HEIGHT,
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
from steering_core.tables.palette import Style, method_styles
from steering_core.tables.words import is_true, readable_strength

_OUTLINED = "datum.outlined"
_FAINT = 0.22  # opacity of what is neither selected nor on the frontier
_SHORT = 18  # letters of a name; two such names stand side by side below a panel
_PADDING = 20  # pixels above a share of 1 and below 0, for markers and labels


@dataclass(frozen=True)
class _Quantity:
    """One axis of a panel: the column, its axis title, and the stem of its interval columns."""

    column: str
    title: str
    interval: str = ""

    @property
    def columns(self) -> list[str]:
        ends = [f"{self.interval}_low", f"{self.interval}_high"] if self.interval else []
        return [self.column, *ends]


_KL = _Quantity("kl_mean", "KL(steered ‖ base), nats per token", "kl_ci")
_RATE = _Quantity("classifier_rate_steered", "completions in target class (share)", "classifier_ci")
_NORM = _Quantity(
    "residual_norm_outside_eval_mean",
    "norm added to rows outside the target class",
    "residual_norm_outside_eval_ci",
)
_FLIP = _Quantity("eval_flip_rate", "flipped, by evaluation probe (share)", "eval_flip_ci")
_L0 = _Quantity("prompt_l0_mean", "features changed per prompt, L0 (log scale)")


def pareto_figure(df: pd.DataFrame, *, interactive: bool = False) -> alt.HConcatChart:
    """Draw the effect of steering against its cost: three panels, one series per method.

    The panels show KL per token against classifier rate, added norm against the flip rate of the
    evaluation probe, and, for methods that act through features, L0 against classifier rate. Both
    axes of a panel are over the same inputs: prompts, or the test rows outside the target class by
    the evaluation probe.

    - Selected points and the frontier are in full colour. The other strengths are faint.
    - A line joins the points of a method in order of strength. It stops at a point with an unsolved
      input, because that point is a mean over other inputs.
    - A point is hollow if some of the panel's inputs had no solution.
    - Bars are bootstrap 95 % intervals.
    - A black outline marks the frontier of the first panel. The label beside it is
      ``frontier_probability`` (1 for unsteered text). It is left out if labels of selected or surer
      points take its place.
    - A ring marks the strength selected on validation prompts.
    - The dashed line is the rate of ``no_steering``.

    Args:
        df: a pareto table of one experiment, with the columns of ``pareto`` in ``columns.yaml``.
        interactive: for a page with scripts: a click on the legend shows that method alone, and
            the axes of a panel can be moved and zoomed.

    Raises:
        ValueError: if ``df`` does not have exactly one experiment and one seed.

    """
    panels, texts = _panels(df, interactive=interactive)
    first = df.iloc[0]
    how = "Click a method below to see it alone; drag or scroll to zoom. " if interactive else ""
    title = alt.TitleParams(
        f"{first['experiment']}: what steering achieves and what it costs",
        subtitle=[
            f"{first['model']}, {first['task']}, layer {first['layer']}. {how}Lines join rising "
            "strengths. Bars: bootstrap 95 % intervals. Dashed: unsteered.",
            "Full colour: a ring is the strength of its method selected on validation prompts; a "
            "black outline is on the frontier of the first panel, with the share of resamples.",
            "Hollow: some inputs had no solution." + _nowhere(texts),
        ],
        fontSize=17,
        offset=14,
    )
    return finished(alt.hconcat(*panels, spacing=26, title=title))


def pareto_panels(df: pd.DataFrame) -> list[alt.LayerChart]:
    """Return the panels of :func:`pareto_figure` one by one, each with its legend.

    A narrow page shows them below each other.

    Raises:
        ValueError: if ``df`` does not have exactly one experiment and one seed.

    """
    columns = 2 if df["method"].str.len().max() <= _SHORT else 1
    return [finished(panel, legend_columns=columns, legend_size=11) for panel in _panels(df)[0]]


def _panels(
    df: pd.DataFrame, *, interactive: bool = False
) -> tuple[list[alt.Chart | alt.LayerChart], pd.DataFrame]:
    """Return the three panels, and the rows drawn in the first."""
    if len(df[["experiment", "seed"]].drop_duplicates()) != 1:
        raise ValueError("a pareto figure shows one experiment at one seed: select its rows first.")
    styles = method_styles(df["method"])
    rows = _drawn(df, styles)
    unsteered = df["method"] == BASELINE  # its base rate is over all prompts
    base = pd.to_numeric(df.loc[unsteered, "classifier_rate_base"]).dropna().iloc[:1]
    texts = rows.assign(hollow=_some_prompt_left_alone(df))
    tested = rows.assign(hollow=df["n_outside_eval_solved"] < df["n_outside_eval"])
    through_features = texts[texts["prompt_l0_mean"] > 0]
    chosen = (
        alt.selection_point(name="chosen", fields=["method"], bind="legend")
        if interactive
        else None
    )
    panels = [
        _panel(texts, styles, "Cost in the text", _KL, _RATE, base, labelled=True, chosen=chosen),
        _panel(tested, styles, "Cost in the residual stream", _NORM, _FLIP, chosen=chosen),
        _panel(through_features, styles, "Cost in features", _L0, _RATE, base, chosen=chosen),
    ]
    if chosen is not None:
        # The selection belongs to one panel and filters them all.
        first = next((at for at, one in enumerate(panels) if isinstance(one, alt.LayerChart)), None)
        if first is not None:
            panels[first] = panels[first].add_params(chosen)
    return panels, texts


def _drawn(df: pd.DataFrame, styles: dict[str, Style]) -> pd.DataFrame:
    """Return ``df`` with numeric columns, and the columns that the marks need."""
    numbers = {
        name: pd.to_numeric(df[name])
        for quantity in (_KL, _RATE, _NORM, _FLIP, _L0)
        for name in quantity.columns
    }
    swept = df["strength_name"].fillna("").astype(str)
    places = {method: rank for rank, method in enumerate(styles)}
    return df.assign(
        **numbers,
        strength=pd.to_numeric(df["strength"]),
        strength_name=swept,
        series=df["method"] + " " + swept,
        at=[readable_strength(*at) for at in zip(swept, df["strength"], strict=True)],
        outlined=is_true(df["on_frontier"]),
        selected=is_true(df["selected"]),
        highlighted=is_true(df["selected"]) | is_true(df["on_frontier"]),
        sure=pd.to_numeric(df["frontier_probability"]),
        area=df["method"].map({method: style.size for method, style in styles.items()}),
        # Draw the first methods of the legend last, so that they are on top.
        rank=df["method"].map(places),
    ).copy()  # in one block, since many columns were added


def _nowhere(texts: pd.DataFrame) -> str:
    """Return a note that names the methods without a point in any panel."""
    there = texts.dropna(subset=[_KL.column, _RATE.column])["method"]
    gone = [name for name in dict.fromkeys(texts["method"]) if name not in set(there)]
    return f" No solution at any strength: {', '.join(gone)}." if gone else ""


def _some_prompt_left_alone(df: pd.DataFrame) -> pd.Series:
    """Return True where some prompt, or some position of a text, had no solution."""
    unsolved = pd.to_numeric(df["unsolved_positions"]).fillna(0) > 0
    return unsolved | (pd.to_numeric(df["feasible_fraction_prompts"]).fillna(1) < 1)


def _panel(
    rows: pd.DataFrame,
    styles: dict[str, Style],
    title: str,
    x: _Quantity,
    y: _Quantity,
    base: pd.Series | None = None,
    *,
    labelled: bool = False,
    chosen: alt.Parameter | None = None,
) -> alt.Chart | alt.LayerChart:
    """Draw ``y``, a share from 0 to 1, against ``x`` for every method."""
    frame = {"title": title, "width": WIDTH, "height": HEIGHT}
    rows = rows.dropna(subset=[x.column, y.column])
    if rows.empty:
        return note("not defined for this experiment").properties(**frame)
    rows = rows.sort_values("strength", kind="stable")
    # A line stops at a hollow point, and another one starts behind it.
    rows = rows.assign(run=rows.groupby("series")["hollow"].cumsum()).sort_index()
    about = ["method", "series", "run", "at", "strength", "outlined", "selected", "highlighted"]
    about += ["hollow", "rank", "area"]
    spread = pd.concat([rows[name] for name in x.columns])
    options = log_axis(spread) if x is _L0 else spread_axis(spread)
    across = alt.X(x.column, type="quantitative", title=x.title, **options)
    shares = alt.Scale(domain=[0, 1], padding=_PADDING, nice=False)
    up = alt.Y(y.column, type="quantitative", title=y.title, scale=shares)
    source = alt.Chart(rows[[*about, *x.columns, *y.columns]]).encode(
        across, up, _by_method("color", styles)
    )
    if chosen is not None:
        source = source.transform_filter(chosen)
    lines = source.transform_filter("!datum.hollow").mark_line(strokeWidth=1.5, opacity=_FAINT)
    layers: list[alt.Chart] = [lines.encode(detail=["series:N", "run:N"], order="strength:Q")]
    layers += _intervals(source.transform_filter("datum.highlighted"), x, y)
    layers += _points(source, styles, rows, [x.column, y.column])
    if labelled:
        layers += label_layers(_labels(rows, x, y, options["scale"]), across, up)
    if base is not None and len(base):
        dashed = alt.Chart(pd.DataFrame({"base": base})).mark_rule(
            strokeDash=[6, 4], color=QUIET, strokeWidth=1.3
        )
        layers.insert(0, dashed.encode(y="base:Q"))
    panel = alt.layer(*layers).properties(**frame)
    if chosen is None:
        return panel
    return panel.add_params(alt.selection_interval(name=f"zoom_{x.column}", bind="scales"))


def _labels(rows: pd.DataFrame, x: _Quantity, y: _Quantity, scale: alt.Scale) -> pd.DataFrame:
    """Return labels of the frontier points with their places; selected points are placed first."""
    drawn = scale.to_dict()
    start, end = drawn["domain"]
    symlog, padding = drawn.get("constant"), drawn["padding"]
    across = pixels(rows[x.column], start, end, WIDTH, padding=padding, symlog=symlog)
    up = pixels(rows[y.column], 0.0, 1.0, HEIGHT, padding=_PADDING)
    rows = rows.assign(across=across, down=HEIGHT - up)
    ordered = rows[rows["outlined"] & (rows["method"] != BASELINE)].sort_values(
        ["selected", "sure"], ascending=False, kind="stable"
    )
    texts = ordered["sure"].map("{:.0%}".format)
    shift = label_places(
        ordered[["across", "down"]].to_numpy(),
        list(texts),
        rows[["across", "down"]].to_numpy(),
        frame=(WIDTH, HEIGHT),
    )
    return ordered[["method", "strength", x.column, y.column]].assign(
        label=texts, dx=shift[:, 0], dy=shift[:, 1]
    )


def _by_method(channel: str, styles: dict[str, Style]) -> alt.Color | alt.Shape:
    """Return the colour or shape of each method, in the order of the legend."""
    kind, field = (alt.Color, "colour") if channel == "color" else (alt.Shape, "shape")
    values = [getattr(style, field) for style in styles.values()]
    return kind("method:N", title=None, scale=alt.Scale(domain=list(styles), range=values))


def _intervals(source: alt.Chart, x: _Quantity, y: _Quantity) -> list[alt.Chart]:
    """Draw bars for the quantities that have an interval."""
    bars = source.mark_rule(opacity=0.45, strokeWidth=1.2)
    found = []
    if y.interval:
        low, high = y.columns[1:]
        found.append(bars.encode(y=alt.Y(low, type="quantitative"), y2=high))
    if x.interval:
        low, high = x.columns[1:]
        found.append(bars.encode(x=alt.X(low, type="quantitative"), x2=high))
    return found


def _points(
    source: alt.Chart, styles: dict[str, Style], rows: pd.DataFrame, shown: list[str]
) -> list[alt.Chart]:
    """Draw filled and hollow points of ``rows``, and rings; a tooltip has the columns ``shown``."""
    points = source.encode(
        _by_method("shape", styles),
        alt.Size("area:Q", scale=None, legend=None),
        order=alt.Order("rank:Q", sort="descending"),
        opacity=alt.condition("datum.highlighted", alt.value(1), alt.value(_FAINT)),
        tooltip=["method", alt.Tooltip("at", title="strength"), *shown],
    )
    found = [
        points.transform_filter("!datum.hollow")
        .mark_point(filled=True)
        .encode(
            stroke=alt.condition(_OUTLINED, alt.value("black"), alt.value("white")),
            strokeWidth=alt.condition(_OUTLINED, alt.value(1.6), alt.value(0.4)),
        )
    ]
    if rows["hollow"].any():
        hollow = points.transform_filter("datum.hollow")
        found.append(hollow.mark_point(filled=False, fill="white", strokeWidth=1.6))
    if rows["selected"].any():
        ring = source.transform_filter("datum.selected")
        found.append(
            ring.mark_point(shape="circle", filled=False, size=300, strokeWidth=1.8, opacity=0.9)
        )
    return found
