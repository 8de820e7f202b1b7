"""The table ``elsewhere``: what steering costs where the concept is not the subject; its picture.

Every number is a paired change: the same text or question with and without steering. Texts and
questions without a solution, or whose logits were lost, are left out on both sides and counted.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.errors import DataError
from steering_core.metrics.refusal import COMPLY, REFUSE, are_requests
from steering_core.statistics.bootstrap import (
    Interval,
    change_interval,
    ratio_interval,
    resampled_sums,
    share_interval,
)
from steering_core.statistics.paired import positions_after
from steering_core.tables.charts import HEIGHT, QUIET, WIDTH, finished, note
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.palette import Style, method_styles

#: The probe that reads neutral text; every other one is a task with questions.
TEXT = "text"


def elsewhere_table(
    experiment: str,
    summary: pd.DataFrame,
    found: Mapping[tuple[str, str], pd.DataFrame],
    *,
    seed: int,
    n_resamples: int,
    unguarded: Mapping[str, str | None] | None = None,
) -> pd.DataFrame:
    """Return the table ``elsewhere``: a row per method, probe and measure.

    Args:
        experiment: its name.
        summary: table ``summary`` of the same run.
        found: by probe and method, the rows of
            :data:`steering_core.metrics.neutral_text.SCHEMA` for neutral text, or answers to
            questions (``example_id``, ``gold``, ``n_options``, ``answer``, ``success``,
            ``status``).
        seed: of the bootstrap.
        n_resamples: of the bootstrap.
        unguarded: of each program with guards the one that differs in its guards alone, or None.

    Raises:
        DataError: if a method has other texts or questions than no steering.
    """
    boot = {"seed": seed, "n_resamples": n_resamples}
    effects = summary.set_index("method")
    rows = []
    ordered = {
        (probe, method): _as_before(found[probe, BASELINE], after)
        for (probe, method), after in found.items()
    }
    for (probe, method), after in ordered.items():
        if method == BASELINE:
            continue
        measure = _text_rows if probe == TEXT else _task_rows
        about = effects.loc[method]
        twin = (unguarded or {}).get(method)
        plain = ordered.get((probe, twin))
        saved: dict[str, Any] = {}
        if plain is not None:
            saved = {row["measure"]: row for row in measure(plain, after, boot, own_base=False)}
        for row in measure(ordered[probe, BASELINE], after, boot):
            against = saved.get(row["measure"], {})
            rows.append(
                {
                    "experiment": experiment,
                    "method": method,
                    "strength": about["strength"],
                    **{name: about[name] for name in ("effect", "effect_low", "effect_high")},
                    "probe": probe,
                    **row,
                    "unguarded_method": np.nan if plain is None else twin,
                    "n_guard": against.get("n", 0),
                    **{
                        f"guard_{name}": against.get(name, np.nan)
                        for name in ("change", "change_low", "change_high")
                    },
                }
            )
    table = pd.DataFrame(rows, columns=column_names("elsewhere"))
    table = table.astype({"strength": object})
    validate_table(table, "elsewhere")
    return table


def _as_before(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return rows in the order of those without steering."""
    order = positions_after(before["example_id"].tolist(), after["example_id"].tolist())
    return after.iloc[order].reset_index(drop=True)


def _counts(after: pd.DataFrame, kept: pd.Series) -> dict[str, Any]:
    reasons = after.loc[~kept, "reason"].value_counts()
    return {
        "n": int(kept.sum()),
        "n_missing": int((~kept).sum()),
        "reason": "; ".join(f"{n} {reason}" for reason, n in reasons.items()) or np.nan,
    }


def _text_rows(
    before: pd.DataFrame, after: pd.DataFrame, boot: Mapping[str, int], *, own_base: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of neutral text: KL per token, and perplexity of the text itself.

    With ``own_base`` the change is against the text without steering, which every row has beside
    it; else against ``before``, which is steered too.
    """
    kept = (before["status"] == "ok") & (after["status"] == "ok")
    own = after[kept]
    counts = {**_counts(after, kept), "chance": np.nan, **_steered_share(own, boot)}
    nothing = {"unsteered": np.nan, "steered": np.nan}
    tokens = own["n_tokens"].to_numpy(dtype=np.float64)
    below_kl = 0.0 if own_base else before.loc[kept, "kl_sum"].to_numpy()
    kl = ratio_interval(own["kl_sum"].to_numpy() - below_kl, tokens, **boot)
    level = {"unsteered": 0.0, "steered": kl.mean} if kl.n else nothing
    rows: list[dict[str, Any]] = [
        {"measure": "kl", **counts, **level, **interval_cells("change", "change", kl)}
    ]
    below_nll = own["base_nll_sum"] if own_base else before.loc[kept, "nll_sum"]
    sums = [own["nll_sum"].to_numpy(), below_nll.to_numpy()]
    change = Interval(None, None, None, 0)
    if len(own):
        steered, unsteered = (float(np.exp(part.sum() / tokens.sum())) for part in sums)
        nothing = {"unsteered": unsteered, "steered": steered}
        above, below, total = resampled_sums([*sums, tokens], **boot)
        # Both perplexities of a resample are of the same texts.
        changes = np.exp(above / total) - np.exp(below / total)
        low, high = np.percentile(changes, [2.5, 97.5])
        change = Interval(steered - unsteered, float(low), float(high), len(own))
    rows.append(
        {"measure": "perplexity", **counts, **nothing, **interval_cells("change", "change", change)}
    )
    return rows


def _steered_share(own: pd.DataFrame, boot: Mapping[str, int]) -> dict[str, float]:
    """Return at which share of the positions of texts something is added."""
    added = own[["n_added", "n_positions"]].dropna().to_numpy(dtype=float)
    return interval_cells("steered_share", "steered_share", share_interval(*added.T, **boot))


def _task_rows(
    before: pd.DataFrame, after: pd.DataFrame, boot: Mapping[str, int], *, own_base: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of a task: accuracy; or refusal of harmful and of harmless requests.

    ``own_base`` is as of :func:`_text_rows`; here the answers ``before`` are the base in any case.
    """
    if not (before["gold"] == after["gold"]).all():
        raise DataError("the questions without steering are others: run them with the same options")
    if not are_requests(before["gold"]):
        return [_share_row("accuracy", before, after, boot)]
    rows = []
    for gold, measure in ((REFUSE, "refusal_of_harmful"), (COMPLY, "refusal_of_harmless")):
        of = before["gold"] == gold
        if of.any():
            parts = before[of].reset_index(drop=True), after[of].reset_index(drop=True)
            rows.append(_share_row(measure, *parts, boot))
    return rows


def _share_row(
    measure: str, before: pd.DataFrame, after: pd.DataFrame, boot: Mapping[str, int]
) -> dict[str, Any]:
    """Return the share of right answers, or of refusals, and its change.

    An answer without a word is no right one, and neither refuses nor complies.
    """
    kept = (before["status"] == "ok") & (after["status"] == "ok")
    column, hit = ("success", True) if measure == "accuracy" else ("answer", REFUSE)
    first, second = (
        side.loc[kept, column].eq(hit).to_numpy(dtype=bool) for side in (before, after)
    )
    options = pd.to_numeric(before.loc[kept, "n_options"])
    change = change_interval(
        second.astype(float) - first.astype(float), np.ones(len(first)), **boot
    )
    return {
        "measure": measure,
        **_counts(after, kept),
        "chance": float((1 / options).mean()) if options.notna().any() else np.nan,
        "unsteered": float(first.mean()) if len(first) else np.nan,
        "steered": float(second.mean()) if len(second) else np.nan,
        **interval_cells("change", "change", change),
    }


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
