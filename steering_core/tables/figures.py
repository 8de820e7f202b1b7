"""The frontier of effect and cost, and the layer sweep, drawn."""

from dataclasses import dataclass

import altair as alt
import pandas as pd

from steering_core.tables.charts import HEIGHT, QUIET, WIDTH, finished, log_axis, note, spread_axis
from steering_core.tables.palette import Style, method_styles

_ACCENT, _SECOND = "#0072B2", "#D55E00"
_PADDED = alt.Scale(zero=False, nice=False, padding=14)
_OUTLINED = "datum.outlined"


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
_NORM = _Quantity("residual_norm_mean", "norm added to the residual stream", "residual_norm_ci")
_FLIP = _Quantity("eval_flip_rate", "flipped, by evaluation probe (share)", "eval_flip_ci")
_L0 = _Quantity("l0_mean", "features changed per input, L0 (log scale)")


def pareto_figure(df: pd.DataFrame) -> alt.HConcatChart:
    """Draw what steering achieves against what it costs: three panels, a series per method.

    KL per token against classifier rate, norm added against evaluation-probe flip rate, and, for
    the methods that act through features, L0 against classifier rate. The points of a method are
    joined in order of strength; bars are bootstrap 95 % intervals; a black outline marks the
    frontier of the first panel, a ring the strength selected on validation prompts; the dashed line
    is the unsteered rate.

    Args:
        df: a pareto table of one experiment, with columns as in ``columns.PARETO_COLUMNS``.

    Raises:
        ValueError: if ``df`` holds no experiment or more than one.

    """
    if df["experiment"].nunique() != 1:
        raise ValueError("a pareto figure shows one experiment: select its rows first.")
    numbers = {
        name: pd.to_numeric(df[name])
        for quantity in (_KL, _RATE, _NORM, _FLIP, _L0)
        for name in quantity.columns
    }
    swept = df["strength_name"].fillna("").astype(str)
    rows = df.assign(
        **numbers,
        strength=pd.to_numeric(df["strength"]),
        strength_name=swept,
        series=df["method"] + " " + swept,
        outlined=_flag(df["on_frontier"]),
        selected=_flag(df["selected"]),
    )
    styles = method_styles(df["method"])
    # The first methods of the legend are drawn last, on top.
    rows["area"] = rows["method"].map({method: style.size for method, style in styles.items()})
    rows["rank"] = rows["method"].map({method: rank for rank, method in enumerate(styles)})
    base = pd.to_numeric(df["classifier_rate_base"]).dropna().iloc[:1]
    panels = [
        _panel(rows, styles, "Cost in the text", _KL, _RATE, base),
        _panel(rows, styles, "Cost in the residual stream", _NORM, _FLIP),
        _panel(rows[rows["l0_mean"] > 0], styles, "Cost in features", _L0, _RATE, base),
    ]
    first = df.iloc[0]
    title = alt.TitleParams(
        f"{first['experiment']}: what steering achieves and what it costs",
        subtitle=[
            f"{first['model']}, {first['task']}, layer {first['layer']}. Lines join rising "
            "strengths. Bars: bootstrap 95 % intervals. Dashed: unsteered.",
            "Black outline: on the frontier of the first panel. Ring: the strength of its method "
            "that was selected on validation prompts.",
        ],
        fontSize=17,
        offset=14,
    )
    return finished(alt.hconcat(*panels, spacing=26, title=title))


def _flag(values: pd.Series) -> pd.Series:
    """True where ``values`` is; an empty cell is False."""
    return values.astype("boolean").fillna(False).astype(bool)


def _panel(
    rows: pd.DataFrame,
    styles: dict[str, Style],
    title: str,
    x: _Quantity,
    y: _Quantity,
    base: pd.Series | None = None,
) -> alt.Chart | alt.LayerChart:
    """``y`` against ``x`` for every method, in shares from 0 to 1."""
    frame = {"title": title, "width": WIDTH, "height": HEIGHT}
    rows = rows.dropna(subset=[x.column, y.column])
    if rows.empty:
        return note("not defined for this experiment").properties(**frame)
    about = ["method", "series", "strength_name", "strength", "outlined", "selected"]
    about += ["rank", "area"]
    source = alt.Chart(rows[[*about, *x.columns, *y.columns]])
    spread = pd.concat([rows[name] for name in x.columns])
    options = log_axis(spread) if x is _L0 else spread_axis(spread)
    across = alt.X(x.column, type="quantitative", title=x.title, **options)
    up = alt.Y(y.column, type="quantitative", title=y.title, scale=alt.Scale(domain=[0, 1]))
    domain = list(styles)
    colours = [style.colour for style in styles.values()]
    shapes = [style.shape for style in styles.values()]
    colour = alt.Color("method:N", title=None, scale=alt.Scale(domain=domain, range=colours))
    shape = alt.Shape("method:N", title=None, scale=alt.Scale(domain=domain, range=shapes))
    bar = {"opacity": 0.45, "strokeWidth": 1.2}
    layers = [
        source.mark_line(strokeWidth=1.5, opacity=0.55).encode(
            across, up, colour, detail="series:N", order="strength:Q"
        )
    ]
    if y.interval:
        low, high = y.columns[1:]
        layers.append(
            source.mark_rule(**bar).encode(across, alt.Y(low, type="quantitative"), colour, y2=high)
        )
    if x.interval:
        low, high = x.columns[1:]
        layers.append(
            source.mark_rule(**bar).encode(alt.X(low, type="quantitative"), up, colour, x2=high)
        )
    layers.append(
        source.mark_point(filled=True, opacity=1).encode(
            across,
            up,
            colour,
            shape,
            alt.Size("area:Q", scale=None, legend=None),
            order=alt.Order("rank:Q", sort="descending"),
            stroke=alt.condition(_OUTLINED, alt.value("black"), alt.value("white")),
            strokeWidth=alt.condition(_OUTLINED, alt.value(1.6), alt.value(0.4)),
            tooltip=["method", "strength_name", "strength", x.column, y.column],
        )
    )
    if rows["selected"].any():
        layers.append(
            source.transform_filter("datum.selected")
            .mark_point(shape="circle", filled=False, size=300, strokeWidth=1.8, opacity=0.9)
            .encode(across, up, colour)
        )
    if base is not None and len(base):
        dashed = alt.Chart(pd.DataFrame({"base": base})).mark_rule(
            strokeDash=[6, 4], color=QUIET, strokeWidth=1.3
        )
        layers.insert(0, dashed.encode(y="base:Q"))
    return alt.layer(*layers).properties(**frame)


def sweep_figure(df: pd.DataFrame, used: int) -> alt.HConcatChart:
    """Draw the layer sweep: cross-validated probe accuracy, and SAE-concept alignment, per layer.

    Args:
        df: columns ``layer``, ``accuracy`` and ``accuracy_std`` (share, over folds),
            ``alignment`` (a squared cosine), ``picked`` (bool).
        used: the layer of the experiment, picked or configured.

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
            alt.Y("low:Q", title="probe accuracy (share), ± 1 SD over folds", scale=_PADDED),
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
    return alt.X("layer:Q", title="layer", axis=alt.Axis(values=ticks, format="d"), scale=_PADDED)


def _curve(df: pd.DataFrame, column: str, title: str, colour: str) -> alt.LayerChart:
    """``column`` by layer, with the layer used marked by a rule."""
    x, marked = _layer_axis(df), alt.Chart(df[df["used"]])
    y = alt.Y(column, type="quantitative", title=title, scale=_PADDED)
    base = alt.Chart(df)
    return alt.layer(
        marked.mark_rule(strokeDash=[6, 4], color=QUIET).encode(x),
        base.mark_line(color=colour, strokeWidth=2).encode(x, y),
        base.mark_point(color=colour, filled=True, size=45, opacity=1).encode(x, y),
        marked.mark_point(color=colour, filled=True, size=130, opacity=1, stroke="black").encode(
            x, y
        ),
    )
