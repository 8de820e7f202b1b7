"""The picture of ``layer: effect``: what one effect costs at each layer that was tried."""

import altair as alt
import pandas as pd

from steering_core.tables.charts import HEIGHT, INK, WIDTH, finished, log_axis, note
from steering_core.tables.frontier_verdict import is_true


def layer_effect_figure(table: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the KL at the matched effect against the layer; the layer that is taken is ringed.

    Args:
        table: table ``layer_effect`` of one experiment.
    """
    there = table[(table["status"] == "reached") & (table["kl"] > 0)]
    if there.empty:
        return finished(note("no layer reaches the effect"))
    first = table.iloc[0]
    ends = pd.concat([there[name] for name in ("kl", "kl_ci_low", "kl_ci_high")]).dropna()
    axis = log_axis(ends[ends > 0])
    low, high = axis["scale"].to_dict()["domain"]
    there = there.assign(
        low=there["kl_ci_low"].fillna(low).clip(lower=low), high=there["kl_ci_high"].fillna(high)
    )
    lost = sorted(set(table["layer"]) - set(there["layer"]))
    said = [
        f"Judge: {first['judge']}. {first['n_prompts']:g} validation prompts. Bars: bootstrap 95 % "
        "intervals over prompts.",
        "Ringed: the layer that is steered."
        + (f" Not reached at layer {', '.join(map(str, lost))}." if lost else ""),
    ]
    across = alt.X(
        "layer:Q", title="layer", axis=alt.Axis(values=sorted(table["layer"]), format="d"),
        scale=alt.Scale(zero=False, padding=20),
    )  # fmt: skip
    up = alt.Y("kl:Q", title="KL at the matched effect, nats per token", **axis)
    base = alt.Chart(there)
    layers = [
        base.mark_line(color=INK, strokeWidth=1.4, opacity=0.6).encode(across, up),
        base.mark_rule(color=INK, opacity=0.6).encode(
            across, alt.Y("low:Q", **axis), alt.Y2("high")
        ),
        base.mark_point(filled=True, size=60, color=INK, opacity=1).encode(across, up),
        alt.Chart(there[is_true(there["picked"])])
        .mark_point(size=260, color="#D55E00", strokeWidth=2)
        .encode(across, up),
    ]
    title = alt.TitleParams(
        f"{first['experiment']}: what a change of {first['effect']:.3g} costs at each layer "
        f"({first['method']})",
        subtitle=said,
        fontSize=16,
        offset=14,
    )
    return finished(alt.layer(*layers).properties(width=1.6 * WIDTH, height=HEIGHT, title=title))
