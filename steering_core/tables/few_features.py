"""The answer with few features: which method with at most so many costs least, and at what price.

All choices are made on validation prompts if there are any that reach the effect, and all numbers
are of the reported ones.
"""

import numpy as np
import pandas as pd

from steering_core.tables.effect_curves import curve_names
from steering_core.tables.pareto import frontier_flags
from steering_core.tables.words import (
    best_of_kind,
    called,
    chosen_on,
    features_of,
    frontier_verdict,
    if_straight,
    interval,
    is_reached,
    made_of,
    name_of,
    number,
)

#: The program of the published method: the margin on the probe, for each input its own shortfall.
PUBLISHED = "qp_optimal"


def fewest_features(rows: pd.DataFrame, factor: float) -> pd.Series | None:
    """Return the row with the fewest features whose KL is at most ``factor`` times the reference's.

    It is chosen by the KL on validation prompts. Chosen on the reported prompts, the first of
    several that chance brings near the reference would look better than it is. Where the reference
    does not reach the effect on validation prompts, every curve that does costs less there. None if
    there are validation prompts, and no curve reaches the effect there.

    Args:
        rows: rows of ``matched`` of one judge and measure.
        factor: largest ratio of KL to that of the best dense direction.
    """
    sparse, dense = rows[rows["kind"] == "features"], best_of_kind(rows, "dense")
    on = chosen_on(rows)
    if on == "effect":
        return None
    if on == "validation":
        limit = np.nan if dense is None else factor * dense["validation_kl"]
        if _misses_on_validation(dense):
            limit = np.inf
        within = sparse[(sparse["validation_kl"] <= limit) & sparse["kl_ratio"].notna()]
    else:
        within = sparse[sparse["kl_ratio"] <= factor]
    return None if within.empty else _fewest_first(within).iloc[0]


def _fewest_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of ``matched`` by their features as they are said, to one digit, then by KL."""
    said = rows.assign(said=rows["l0"].round(1))
    return said.sort_values(["said", "validation_kl", "kl"], kind="stable").drop(columns="said")


def _misses_on_validation(dense: pd.Series | None) -> bool:
    """Return whether there is a reference, and it does not reach the effect there."""
    return dense is not None and bool(pd.isna(dense["validation_kl"]))


def cheapest_with_few(
    rows: pd.DataFrame, pareto: pd.DataFrame, features: float
) -> pd.Series | None:
    """Return the row that is cheapest on validation prompts among those with few features.

    Args:
        rows: rows of ``matched`` of one judge and measure.
        pareto: the table ``pareto``, which knows the features of a curve that does not reach the
            effect.
        features: how many are few.
    """
    sparse = rows[rows["kind"] == "features"]
    curves = curve_names(pareto).assign(method=pareto["method"], l0=pareto["prompt_l0_mean"])
    most = curves.groupby(["method", "curve"])["l0"].max()
    keys = pd.MultiIndex.from_frame(sparse[["method", "curve"]])
    used = sparse["l0"].fillna(pd.Series(most.reindex(keys).to_numpy(), index=sparse.index))
    by = "validation_kl" if rows["validation_kl"].notna().any() else "kl"
    few = sparse[(used.round(1) <= features) & sparse[by].notna()]
    return None if few.empty else few.sort_values(by, kind="stable").iloc[0]


def as_published(rows: pd.DataFrame) -> pd.Series | None:
    """Return the best curve of the published program, by the KL on validation prompts.

    None if it was not run, or if none of its curves reaches the effect there.
    """
    by = "validation_kl" if rows["validation_kl"].notna().any() else "kl"
    own = rows[(rows["method"] == PUBLISHED) & rows[by].notna()]
    return None if own.empty else own.sort_values(by, kind="stable").iloc[0]


def few_sentence(
    rows: pd.DataFrame, few: pd.Series | None, features: int, factor: float
) -> str | None:
    """Say what the cheapest method with few features costs, and the published program beside it."""
    dense, published = best_of_kind(rows, "dense"), as_published(rows)
    if few is None or not is_reached(dense):
        return None
    where, on, chosen_here = "", "on the reported prompts", chosen_on(rows) != "validation"
    if not chosen_here:
        where, on = " on validation prompts", "on the reported ones"
    what = name_of(few) if few["status"] != "reached" else made_of(few)
    text = (
        f"For a change of {number(few['effect'])}, {what} is the cheapest method with at most "
        f"{features} features{where}; {on} it "
    )
    if is_reached(few):
        text += (
            f"costs {number(few['kl'])} nats per token, {number(few['kl_ratio'])} times as much as "
            f"{name_of(dense)} ({interval(few, 'kl_ratio')}). "
            f"{_against(few, dense, factor, chosen_here=chosen_here)}"
        )
    else:
        text += "does not reach the effect."
    program = " The program of the published method, at strengths of this experiment,"
    if published is None and (rows["method"] == PUBLISHED).any():
        text += f"{program} {PUBLISHED}, does not reach the effect{where}."
    elif published is not None and published["method"] != few["method"]:
        what = f"{program} {name_of(published)},"
        if is_reached(published):
            text += (
                f"{what} costs {number(published['kl_ratio'])} times as much "
                f"({interval(published, 'kl_ratio')}) with {features_of(published)}."
            )
        else:
            text += f"{what} does not reach the effect."
    return text


def few_frontier(pareto: pd.DataFrame, few: pd.Series, features: int) -> str | None:
    """Say where a method is on the frontier of effect and KL among strengths with few features.

    The dense directions are left out: a sparse vector stands on the frontier with them only by
    costing no more.

    Args:
        pareto: the table ``pareto``.
        few: row of ``matched`` of the method.
        features: how many are few.
    """
    competing = (pareto["prompt_l0_mean"].round(1) <= features) & pareto["on_frontier"].notna()
    own = pareto[competing].copy()
    own["on_frontier"], own["frontier_probability"] = frontier_flags(own), np.nan
    swept = few["curve"] if "features=" in str(few["curve"]) else None
    mine = own[own["method"] == few["method"]]
    if mine.empty or (swept and not (mine["strength_name"] == swept).any()):
        return None
    said = frontier_verdict(own, few["method"], swept)
    return f"Among the strengths with at most {features} features, {said}"


def _against(row: pd.Series, dense: pd.Series | None, factor: float, *, chosen_here: bool) -> str:
    """Say on which side of ``factor`` a ratio of costs is, and whether that is sure.

    A row that was chosen on the reported prompts is never surely on the lower side.
    """
    straight = if_straight(row, dense)
    high, low = row["kl_ratio_ci_high"], row["kl_ratio_ci_low"]
    if row["kl_ratio"] > factor:
        sure = pd.notna(low) and low > factor
        return f"That is more than {factor:g} times" + (
            f", beyond noise{straight}." if sure else "; the interval does not rule out less."
        )
    if chosen_here:
        return (
            f"That is at most {factor:g} times; as the least of several on these prompts it is "
            "biased downwards."
        )
    sure = pd.notna(high) and high <= factor
    return f"That is at most {factor:g} times" + (
        f", beyond noise{straight}." if sure else "; the interval does not rule out more."
    )


def sparsity_sentence(rows: pd.DataFrame, factor: float) -> str | None:
    """Say how few features come within ``factor`` times the KL of the best dense direction."""
    sparse = rows[(rows["kind"] == "features") & rows["kl_ratio"].notna()]
    if sparse.empty:
        return None
    found = fewest_features(rows, factor)
    on, missed, chosen = "", False, chosen_on(rows)
    if chosen == "validation":
        on, missed = " on validation prompts", _misses_on_validation(best_of_kind(rows, "dense"))
    if found is None:
        near = sparse.sort_values("kl_ratio", kind="stable").iloc[0]
        lacking = (
            "reaches it on the reported and on the validation prompts, and neither does the best "
            "dense direction"
            if missed
            else f"comes within {factor:g} times the KL of the best dense direction{on}"
        )
        if chosen == "effect":
            lacking = "reaches it on the validation prompts"
        text = (
            f"For a change of {number(near['effect'])}, no method made of features {lacking}. The "
            f"cheapest on the reported prompts is {made_of(near)}, at "
            f"{number(near['kl_ratio'])} times the KL of the best dense direction "
            f"({interval(near, 'kl_ratio')}); as the least of several it is biased downwards."
        )
    else:
        near = found
        verb = "s" if round(found["l0"], 1) == 1 else ""
        effect = number(found["effect"])
        near_it = (
            f"come{verb} within {factor:g} times the KL of the best dense direction{on}, for a "
            f"change of {effect}"
        )
        if missed:
            near_it = (
                f"reach{'es' if verb else ''} a change of {effect}{on}, where the best dense "
                "direction does not"
            )
        text = (
            f"{features_of(found)} {near_it}: {called(found)}. On the reported prompts it costs "
            f"{number(found['kl_ratio'])} times as much as that direction "
            f"({interval(found, 'kl_ratio')}). "
            f"{_against(found, best_of_kind(rows, 'dense'), factor, chosen_here=not on)}"
        )
    least = _fewest_first(sparse).iloc[0]
    if (least["method"], least["curve"]) != (near["method"], near["curve"]):
        text += (
            f" The sparsest that gets there on the reported prompts, {made_of(least)}, costs "
            f"{number(least['kl_ratio'])} times as much ({interval(least, 'kl_ratio')})."
        )
    return text
