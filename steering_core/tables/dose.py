"""The table ``dose``: effect and cost of each method over the size of what it adds; its picture.

The dose is the norm of the added vector in units of the mean residual norm at the site, so it
compares methods whose strengths mean different things. Each method has a band of doses in which its
texts stay fluent. Methods that add no vector have effect, cost and fluency without a dose.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.methods.solutions import TEXT_KEY, solved
from steering_core.statistics.bootstrap import (
    Interval,
    change_interval,
    mean_interval,
    resampled_sums,
    share_interval,
)
from steering_core.tables.charts import HEIGHT, QUIET, WIDTH, finished, note, spread_axis
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.effect_curves import curve_names
from steering_core.tables.measured import Measured, of_prompts
from steering_core.tables.palette import method_styles

_POINT = ["method", "strength_index"]
#: Length of the runs of tokens that are looked for twice in a text.
RUN = 3


def repeated_share(tokens: Sequence[int]) -> float:
    """Return the share of a text's runs of three tokens that occurred in it before.

    NaN for a text without such a run. This is 1 minus the share of distinct 3-grams (Li et al.
    2016, distinct-n).
    """
    runs = [tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else float("nan")


def with_repetition(measured: Measured, generations: pd.DataFrame) -> pd.DataFrame:
    """Return the reported texts with ``repetition``, a row per strength and prompt.

    Args:
        measured: of the experiment.
        generations: rows of all methods: the key of a text and ``new_tokens``.
    """
    shares = [np.nan if t is None else repeated_share(t) for t in generations["new_tokens"]]
    repeated = of_prompts(generations[[*TEXT_KEY]].assign(repetition=shares, n_tokens=1))
    key = [*_POINT, "example_id"]
    return measured.texts.merge(repeated[[*key, "repetition"]], on=key, validate="one_to_one")


def dose_table(
    experiment: str,
    measured: Measured,
    texts: pd.DataFrame,
    unit: float,
    *,
    target_class: int,
    fluent_perplexity: float,
    fluent_repetition: float,
    seed: int,
    n_resamples: int,
) -> pd.DataFrame:
    """Return the table ``dose``: a row per method and strength; NaN as dose without a vector.

    Args:
        experiment: its name.
        measured: of the experiment.
        texts: of :func:`with_repetition`.
        unit: mean residual norm at the site.
        target_class: that is steered to.
        fluent_perplexity: texts are fluent up to so many times the perplexity of the unsteered
            texts of the same prompts …
        fluent_repetition: … and as long as the share of repeated runs is at most so much higher.
        seed: of the bootstrap.
        n_resamples: of the bootstrap.
    """
    boot = {"seed": seed, "n_resamples": n_resamples}
    # The judge's score is finer than its verdict. It is missing for a text without a word.
    score = texts["score"] if target_class == 1 else 1 - texts["score"]
    made = texts.assign(towards=score)[texts["n_tokens"] > 0]
    base = made[made["method"] == BASELINE].set_index("example_id")
    prompts = measured.solutions[measured.solutions["split"] == "prompt"]
    first = prompts[solved(prompts)].drop_duplicates(_POINT)
    curves = first[_POINT].assign(curve=curve_names(first)["curve"])
    names = measured.solutions.drop_duplicates(_POINT).set_index(_POINT)
    rows = []
    for point, own in made.groupby(_POINT, sort=False):
        norm = prompts.loc[(prompts[_POINT] == list(point)).all(axis=1), "residual_norm"].mean()
        own = own[own["example_id"].isin(base.index)].set_index("example_id")
        cells = _cells(own, base.loc[own.index], boot)
        if point[0] == BASELINE:  # the change is against these very texts
            cells |= {"effect_ci_low": 0.0, "effect_ci_high": 0.0}
        ratio, excess = cells["perplexity_ratio"], cells["repetition"] - cells["repetition_base"]
        rows.append(
            {
                "experiment": experiment,
                "method": point[0],
                "strength_index": point[1],
                **names.loc[point, ["strength_name", "strength", "tau"]].to_dict(),
                "dose": norm / unit,
                "n_prompts": len(own),
                **cells,
                "fluent": bool(ratio <= fluent_perplexity and excess <= fluent_repetition),
            }
        )
    table = pd.DataFrame(rows).merge(curves, on=_POINT, how="left")
    bands = {
        name: _band(curve.sort_values("dose", kind="stable"))
        for name, curve in table.groupby(["method", "curve"], sort=False)
    }
    table["fluent_up_to"] = [
        bands[key] for key in zip(table["method"], table["curve"], strict=True)
    ]
    table = table[column_names("dose")]
    validate_table(table, "dose")
    return table


def _band(curve: pd.DataFrame) -> float:
    """Return the largest dose before the first that is not fluent; NaN if the first is not.

    NaN, too, for a method that adds no vector.
    """
    fluent = curve["fluent"].cummin()
    return float(curve.loc[fluent, "dose"].max()) if fluent.any() else np.nan


def _cells(own: pd.DataFrame, base: pd.DataFrame, boot: dict[str, int]) -> dict[str, Any]:
    """Return effect, cost, fluency and the share of prompts that went the wrong way."""
    effect = (own["judged"] - base["judged"]).dropna().to_numpy(dtype=float)
    change = change_interval(effect, np.ones_like(effect), **boot)
    both = own["towards"].notna() & base["towards"].notna()
    wrong = (own["towards"] < base["towards"])[both].to_numpy(dtype=float)
    shares = [side["repetition"].mean() for side in (own, base)]
    return {
        **interval_cells("effect", "effect_ci", change),
        **interval_cells(
            "anti_steered", "anti_steered_ci", share_interval(wrong, np.ones_like(wrong), **boot)
        ),
        **interval_cells(
            "kl", "kl_ci", mean_interval((own["kl_sum"] / own["n_tokens"]).to_numpy(), **boot)
        ),
        **interval_cells("perplexity_ratio", "perplexity_ratio_ci", _ratio(own, base, boot)),
        "repetition": shares[0],
        "repetition_base": shares[1],
    }


def _ratio(own: pd.DataFrame, base: pd.DataFrame, boot: dict[str, int]) -> Interval:
    """Return the ratio of two perplexities, of texts of the same prompts, resampled as pairs."""
    sides = [
        side[name].to_numpy(dtype=float)
        for side in (own, base)
        for name in ("base_nll_sum", "n_tokens")
    ]
    nll, tokens, nll_base, tokens_base = resampled_sums(sides, **boot)
    drawn = np.exp(nll / tokens - nll_base / tokens_base)
    low, high = np.percentile(drawn, [2.5, 97.5])
    totals = [part.sum() for part in sides]
    mean = np.exp(totals[0] / totals[1] - totals[2] / totals[3])
    return Interval(float(mean), float(low), float(high), len(own))


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
    shape = alt.Shape(  # colours are fewer than declared programs may be
        "method:N",
        title=None,
        scale=alt.Scale(domain=list(styles), range=[style.shape for style in styles.values()]),
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
                shape,
                fill=alt.Fill(
                    "method:N",
                    title=None,
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
