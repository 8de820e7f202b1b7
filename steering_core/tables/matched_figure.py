"""The pictures of the comparison at matched effect: all methods, and the price of sparsity.

They are apart from their tables, which the answer reads: a change of a picture leaves the stage of
the answer alone.
"""

import altair as alt
import numpy as np
import pandas as pd

from steering_core.statistics.matched_effect import EffectCurve
from steering_core.tables.charts import (
    HEIGHT,
    INK,
    QUIET,
    WIDTH,
    finished,
    log_axis,
    note,
    spread_axis,
)
from steering_core.tables.palette import Style, method_styles
from steering_core.tables.words import headline_rows, is_true, readable_held

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
    rows, points = headline_rows(matched), headline_rows(curves)
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


def price_figure(price: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw what each number of features costs, a line a program, with its dense floor dashed.

    Args:
        price: table ``price`` of one experiment; only the first judge's rate is drawn. It may be
            empty.
    """
    if price.empty:
        return finished(note("no program of this experiment has counts of features to compare"))
    first = price.iloc[0]
    rows = headline_rows(price)
    there = rows[(rows["status"] == "reached") & (rows["kl"] > 0)]
    sparse, dense = (there[there["features"].notna() == made] for made in (True, False))
    if sparse.empty:
        return finished(note("no vector made of features reaches the matched effect"))
    ends = pd.concat([there[name] for name in ("kl", "kl_ci_low", "kl_ci_high")]).dropna()
    axis = log_axis(ends[ends > 0])
    low, high = axis["scale"].to_dict()["domain"]
    sparse = sparse.drop_duplicates(["program", "l0"]).assign(
        low=sparse["kl_ci_low"].fillna(low).clip(lower=low),
        high=sparse["kl_ci_high"].fillna(high),  # a bar without an end runs to the frame
        shown=[f"× {ratio:.3g}" if pd.notna(ratio) else "" for ratio in sparse["kl_ratio"]],
    )
    styles = method_styles(rows["program"])
    colour = alt.Color(
        "program:N",
        title=None,
        scale=alt.Scale(domain=list(styles), range=[style.colour for style in styles.values()]),
    )
    across = alt.X("l0:Q", title="features that the vector is made of", **log_axis(sparse["l0"]))
    up = alt.Y("kl:Q", title="KL at the matched effect, nats per token", **axis)
    base = alt.Chart(sparse)
    layers = [
        alt.Chart(dense).mark_rule(strokeDash=[6, 4], strokeWidth=1.6).encode(up, colour),
        base.mark_line(strokeWidth=1.6, opacity=0.7).encode(across, up, colour),
        base.mark_rule(strokeWidth=1.4, opacity=0.55).encode(
            across, alt.Y("low:Q", **axis), alt.Y2("high"), colour
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(across, up, colour),
        base.mark_text(dx=6, dy=-9, align="left", fontSize=11, color=INK).encode(
            across, up, text="shown:N"
        ),
    ]
    title = alt.TitleParams(
        f"{first['experiment']}: what sparsity costs at a change of {first['effect']:.3g}",
        subtitle=[
            f"Judge: {first['judge']}. {first['n_prompts']:g} prompts. Bars: bootstrap 95 % "
            "intervals over prompts.",
            "Dashed: the least vector without features at the same margin. Numbers: multiples of "
            "its KL.",
            *_said_of_sae(first),
        ],
        fontSize=16,
        offset=14,
        subtitleColor=QUIET,
    )
    return finished(
        alt.layer(*layers).properties(width=1.7 * WIDTH, height=1.2 * HEIGHT, title=title)
    )


def _said_of_sae(row: pd.Series) -> list[str]:
    """Return what is known of the SAE, so that pictures of two dictionaries can be compared."""
    said = []
    if pd.notna(row["d_sae"]):
        said.append(f"{row['d_sae']:g} features")
    if pd.notna(row["sae_l0"]):
        said.append(f"L0 {row['sae_l0']:.3g}")
    if pd.notna(row["sae_explained_variance"]):
        said.append(f"explained variance {row['sae_explained_variance']:.3g}")
    return [f"SAE: {', '.join(said)}."] if said else []
