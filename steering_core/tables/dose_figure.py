"""The picture of effect and cost over the dose."""

import altair as alt
import pandas as pd

from steering_core.tables.charts import HEIGHT, QUIET, WIDTH, finished, note, spread_axis
from steering_core.tables.palette import method_styles

_PANELS = {
    "effect": ("change of the share in the target class", 0.0),
    "kl": ("KL(steered ‖ base), nats per token", None),
    "perplexity_ratio": ("perplexity ÷ that of the unsteered texts", 1.0),
    "anti_steered": ("prompts that moved away from the target (share)", None),
}


def dose_figure(table: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw effect, KL, perplexity and the share of prompts pushed the wrong way over the dose.

    Args:
        table: table ``dose`` of one experiment.
    """
    drawn = table[table["dose"] > 0]
    if drawn.empty:
        return finished(note("no method adds a vector"))
    drawn = drawn.assign(
        text=drawn["fluent"].map({True: "fluent", False: "not fluent"}),
        line=drawn["method"] + ", " + drawn["curve"],
    )
    styles = method_styles(drawn["method"])
    colour = alt.Color(
        "method:N",
        title=None,
        scale=alt.Scale(domain=list(styles), range=[style.colour for style in styles.values()]),
    )
    across = alt.X("dose:Q", title="‖v‖ ÷ mean residual norm", **spread_axis(drawn["dose"]))
    panels = []
    for name, (title, rule) in _PANELS.items():
        up = alt.Y(f"{name}:Q", title=title)
        base = alt.Chart(drawn)
        layers = [
            base.mark_line(opacity=0.6).encode(across, up, colour, detail="line:N"),
            base.mark_rule(opacity=0.35).encode(
                across, alt.Y(f"{name}_ci_low:Q", title=title), alt.Y2(f"{name}_ci_high"), colour
            ),
            base.mark_point(size=45, opacity=1).encode(
                across,
                up,
                colour,
                fill=alt.Fill(
                    "method:N",
                    legend=None,
                    scale=alt.Scale(
                        domain=list(styles), range=[style.colour for style in styles.values()]
                    ),
                ),
                fillOpacity=alt.FillOpacity(
                    "text:N",
                    title=None,
                    scale=alt.Scale(domain=["fluent", "not fluent"], range=[1.0, 0.0]),
                    legend=None,
                ),
            ),
        ]
        if rule is not None:
            level = alt.Chart(pd.DataFrame({name: [rule]}))
            layers.insert(0, level.mark_rule(strokeDash=[6, 4], color=QUIET).encode(up))
        panels.append(alt.layer(*layers).properties(width=1.4 * WIDTH, height=HEIGHT))
    title = alt.TitleParams(
        f"{table['experiment'].iloc[0]}: effect and cost over the dose",
        subtitle=[
            "Lines join the strengths of a method. Hollow: the texts are no longer fluent, by the "
            "limits of perplexity and repetition in the configuration.",
            "Bars: bootstrap 95 % intervals over prompts.",
        ],
        fontSize=17,
        offset=14,
    )
    return finished(alt.concat(*panels, columns=2, spacing=26, title=title))
