"""The picture of effect against cost elsewhere."""

import altair as alt
import pandas as pd

from steering_core.tables.charts import HEIGHT, QUIET, WIDTH, finished, note
from steering_core.tables.palette import Style, method_styles

#: What each measure is called on its axis.
_NAMED = {
    "kl": "KL(steered ‖ base) on neutral text, nats per token",
    "perplexity": "change of the perplexity of neutral text",
    "accuracy": "change of the accuracy on {probe}",
    "refusal_of_harmful": "change of the refusal of harmful requests, {probe}",
    "refusal_of_harmless": "change of the refusal of harmless requests, {probe}",
}
_ACROSS = 3  # panels in a row


def elsewhere_figure(table: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw a panel for each measure of each probe: effect against the change elsewhere.

    Args:
        table: table ``elsewhere`` of one experiment.
    """
    drawn = table.dropna(subset=["effect", "change"])
    if drawn.empty:
        return finished(note("no method has a selected strength whose cost elsewhere was measured"))
    styles = method_styles(drawn["method"])
    panels = [
        _panel(rows, _NAMED[measure].format(probe=probe), styles)
        for (probe, measure), rows in drawn.groupby(["probe", "measure"], sort=False)
    ]
    title = alt.TitleParams(
        f"{table['experiment'].iloc[0]}: what steering costs elsewhere",
        subtitle=[
            "Each method at its selected strength. Bars: bootstrap 95 % intervals of paired "
            "changes. Dashed: no change.",
        ],
        fontSize=17,
        offset=14,
    )
    return finished(alt.concat(*panels, columns=_ACROSS, spacing=26, title=title))


def _panel(rows: pd.DataFrame, named: str, styles: dict[str, Style]) -> alt.LayerChart:
    domain = list(styles)
    colour = alt.Color(
        "method:N",
        title=None,
        scale=alt.Scale(domain=domain, range=[style.colour for style in styles.values()]),
    )
    shape = alt.Shape(
        "method:N",
        title=None,
        scale=alt.Scale(domain=domain, range=[style.shape for style in styles.values()]),
    )
    across = alt.X("change:Q", title=named)
    up = alt.Y("effect:Q", title="change of the share in the target class")
    base = alt.Chart(rows)
    return alt.layer(
        alt.Chart(pd.DataFrame({"change": [0.0]}))
        .mark_rule(strokeDash=[6, 4], color=QUIET)
        .encode(alt.X("change:Q", title=named)),
        base.mark_rule(opacity=0.5).encode(
            alt.X("change_low:Q", title=named), alt.X2("change_high"), up, colour
        ),
        base.mark_rule(opacity=0.5).encode(
            across,
            alt.Y("effect_low:Q", title="change of the share in the target class"),
            alt.Y2("effect_high"),
            colour,
        ),
        base.mark_point(filled=True, size=80, opacity=1).encode(across, up, colour, shape),
    ).properties(width=WIDTH, height=HEIGHT)
