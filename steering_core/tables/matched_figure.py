"""The picture of the comparison at matched effect."""

import altair as alt
import numpy as np
import pandas as pd

from steering_core.statistics.matched_effect import EffectCurve
from steering_core.tables.charts import INK, QUIET, WIDTH, finished, log_axis, note, spread_axis
from steering_core.tables.palette import Style, method_styles
from steering_core.tables.words import is_true, readable_held

_ROW = 18  # pixels of a curve in the right panel
_HEIGHT = 330


def matched_figure(matched: pd.DataFrame, curves: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the fitted curves of effect against KL, and the KL at which each meets the effect.

    Args:
        matched: table ``matched`` of one experiment; only the first judge's rate is drawn.
        curves: table ``effect_curves`` of the same run.
    """
    if matched.empty or pd.isna(matched["effect"].iloc[0]):
        return finished(note("no strength moves the texts towards the target, so nothing matches"))
    first = matched.iloc[0]
    rows, points = (
        table[(table["judge"] == first["judge"]) & (table["measure"] == first["measure"])]
        for table in (matched, curves)
    )
    rows = rows.assign(
        label=[_name(*one) for one in zip(rows["method"], rows["curve"], strict=True)]
    )
    styles = method_styles(rows["method"])
    title = alt.TitleParams(
        f"{first['experiment']}: what a change of {first['effect']:.3g} in the share of texts in "
        "the target class costs",
        subtitle=[
            f"Judge: {first['judge']}. {first['n_prompts']:g} prompts. Bars: bootstrap 95 % "
            "intervals over prompts. Numbers: features changed.",
            f"Dashed: the matched effect, and the best dense direction: {first['reference']}.",
        ],
        fontSize=17,
        offset=14,
    )
    panels = [_fits(points, styles, first["effect"]), _costs(rows, styles)]
    return finished(alt.hconcat(*panels, spacing=26, title=title))


def _name(method: str, curve: str) -> str:
    """Return a method, and what is held along its curve if anything is."""
    held = readable_held(curve)
    return f"{method}, {held}" if held else method


def _colour(styles: dict[str, Style]) -> alt.Color:
    colours = [style.colour for style in styles.values()]
    return alt.Color("method:N", title=None, scale=alt.Scale(domain=list(styles), range=colours))


def _fits(points: pd.DataFrame, styles: dict[str, Style], effect: float) -> alt.LayerChart:
    """Draw the curves that the comparison reads, with the points that they are fitted to."""
    whole = points[is_true(points["whole"]) & points["effect"].notna()]
    frames = []
    for (method, curve), own in whole.groupby(["method", "curve"], sort=False):
        kl, change = (own[name].to_numpy(dtype=float)[:, None] for name in ("kl", "effect"))
        fitted = EffectCurve.fit(kl, change)
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "curve": f"{method}, {curve}",
                    "kl": fitted.cost[:, 0] ** 2,
                    "fitted": fitted.effect[:, 0],
                    "place": range(len(fitted.cost)),
                }
            )
        )
    lines = pd.concat(frames)
    across = alt.X("kl:Q", title="KL(steered ‖ base), nats per token", **spread_axis(lines["kl"]))
    named = "change of the share in the target class"
    target = alt.Chart(pd.DataFrame({"effect": [effect]}))
    return alt.layer(
        target.mark_rule(strokeDash=[6, 4], color=QUIET).encode(y="effect:Q"),
        alt.Chart(lines)
        .mark_line(strokeWidth=1.6, opacity=0.7)
        .encode(
            across,
            alt.Y("fitted:Q", title=named),
            _colour(styles),
            detail="curve:N",
            order="place:Q",
        ),
        alt.Chart(whole)
        .mark_point(filled=True, size=34, opacity=0.8)
        .encode(across, alt.Y("effect:Q", title=named), _colour(styles)),
    ).properties(title="Effect against cost", width=1.2 * WIDTH, height=_HEIGHT)


def _costs(rows: pd.DataFrame, styles: dict[str, Style]) -> alt.Chart | alt.LayerChart:
    """Draw the KL at which each curve meets the effect, the cheapest on top."""
    there = rows[(rows["status"] == "reached") & (rows["kl"] > 0)].sort_values("kl", kind="stable")
    frame = {"title": "KL at the matched effect", "width": 1.3 * WIDTH}
    if there.empty:
        return note("no curve reaches the effect").properties(**frame, height=_HEIGHT)
    ends = pd.concat([there[name] for name in ("kl", "kl_ci_low", "kl_ci_high")]).dropna()
    axis = log_axis(ends[ends > 0])
    low, high = axis["scale"].to_dict()["domain"]
    there = there.assign(
        low=there["kl_ci_low"].fillna(low).clip(lower=low),
        high=there["kl_ci_high"].fillna(high),  # a bar without an end runs to the frame
        features=["" if pd.isna(count) else f"{np.round(count, 1):g}" for count in there["l0"]],
    )
    up = alt.Y("label:N", title=None, sort=list(there["label"]), axis=alt.Axis(labelLimit=260))
    across = alt.X("kl:Q", title="KL(steered ‖ base), nats per token", **axis)
    base = alt.Chart(there)
    layers = [
        base.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            alt.X("low:Q", **axis), alt.X2("high"), up, _colour(styles)
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(across, up, _colour(styles)),
        base.mark_text(dy=-8, fontSize=10, color=INK).encode(across, up, text="features:N"),
    ]
    dense = there[is_true(there["best_of_kind"]) & (there["kind"] == "dense")]
    if len(dense):
        layers.insert(
            0,
            alt.Chart(dense).mark_rule(strokeDash=[6, 4], color=QUIET).encode(across),
        )
    return alt.layer(*layers).properties(**frame, height=max(_HEIGHT, _ROW * len(there)))
