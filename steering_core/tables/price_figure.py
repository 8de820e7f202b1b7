"""The picture of the price of sparsity: KL at the matched effect against the number of features.

It is apart from its table, so that a change of the picture leaves the stage of the answer alone.
"""

import altair as alt
import pandas as pd

from steering_core.tables.charts import HEIGHT, INK, QUIET, WIDTH, finished, log_axis, note
from steering_core.tables.palette import method_styles


def price_figure(price: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw what each number of features costs, a line a program, with its dense floor dashed.

    Args:
        price: table ``price`` of one experiment; only the first judge's rate is drawn. It may be
            empty.
    """
    if price.empty:
        return finished(note("no program of this experiment has counts of features to compare"))
    first = price.iloc[0]
    rows = price[(price["judge"] == first["judge"]) & (price["measure"] == first["measure"])]
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
            "Dashed: the least dense vector with the same margin. Numbers: multiples of its KL.",
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
