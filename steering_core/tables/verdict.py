"""The answer of an experiment: the table ``summary``, and the verdict in words.

Each sentence is made from cells of the tables by a rule, and left out if a cell that it needs is
empty. A difference is called one only if its interval says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE, PUBLISHED_PROGRAMS
from steering_core.tables.caveats import warnings_in
from steering_core.tables.columns import column_names, json_value, validate_table
from steering_core.tables.effect_curves import curve_names
from steering_core.tables.few_features import (
    as_published,
    cheapest_with_few,
    few_frontier,
    few_sentence,
    fewest_features,
    sparsity_sentence,
)
from steering_core.tables.power_and_agreement import (
    disagreements,
    judge_sentences,
    power_facts,
    power_sentences,
    undetectable_effect,
)
from steering_core.tables.price import price_sentences, price_warnings
from steering_core.tables.words import (
    best_of_kind,
    chosen_on,
    frontier_verdict,
    headline_rows,
    if_straight,
    interval,
    is_reached,
    is_true,
    made_of,
    name_of,
    number,
    readable_label,
    strength_label,
)

_SPARSE = "the sparse method is cheaper"
_DENSE = "the dense direction is cheaper"
_SURE = ", beyond noise"
_UNDECIDED = "this run cannot tell the two apart"
_CHOSEN_HERE = (
    "both were chosen on these prompts, where the least of several is biased downwards, so this "
    "run does not say which is cheaper"
)


def summary_table(
    pareto: pd.DataFrame, matched: pd.DataFrame, effect_curves: pd.DataFrame
) -> pd.DataFrame:
    """Return the table ``summary``: a row per method, at its selected strength.

    Args:
        pareto: pareto table of one experiment.
        matched: table ``matched`` of the same run.
        effect_curves: table ``effect_curves`` of the same run.
    """
    effects, costs = (headline_rows(table) for table in (effect_curves, matched))
    key = ["method", "curve", "strength"]
    points = (
        pareto.copy()
        .assign(**curve_names(pareto))
        .merge(effects[[*key, "effect", "effect_ci_low", "effect_ci_high"]], on=key, how="left")
    )
    labels = pareto.apply(strength_label, axis=1).to_numpy()
    rows = []
    for method in pareto["method"].unique():
        row: dict[str, Any] = dict.fromkeys(column_names("summary"), np.nan)
        row |= {"experiment": pareto["experiment"].iloc[0], "method": method, "strength": None}
        rows.append(row)
        place = np.flatnonzero((pareto["method"] == method) & is_true(pareto["selected"]))
        if not place.size:
            continue
        point = points.iloc[place[0]]
        row |= {
            "strength": labels[place[0]],
            "kl": point["kl_mean"],
            "features": point["prompt_l0_mean"],
        }
        if method == BASELINE:  # the change is against these very texts
            row |= {"effect": 0.0, "effect_low": 0.0, "effect_high": 0.0}
            continue
        row |= {
            "effect": point["effect"],
            "effect_low": point["effect_ci_low"],
            "effect_high": point["effect_ci_high"],
        }
        own = costs[(costs["method"] == method) & (costs["curve"] == point["curve"])]
        if len(own):
            for end in ("", "_low", "_high"):
                row[f"kl_ratio{end}"] = own[f"kl_ratio{'_ci' if end else ''}{end}"].iloc[0]
    table = pd.DataFrame(rows)[column_names("summary")]
    validate_table(table, "summary")
    return table


@dataclass(frozen=True)
class _Compared:
    """One judge and measure: the rows of ``matched``, the best dense direction, the best sparse."""

    rows: pd.DataFrame
    dense: pd.Series | None
    sparse: pd.Series | None

    @property
    def first(self) -> pd.Series:
        return self.rows.iloc[0]

    @property
    def by(self) -> str:
        """The judge and what it counts, in words."""
        what = "the share of texts in the target class"
        if self.first["measure"] == "score":
            what = "the judge's mean score"
        return f"{what} (judge: {self.first['judge']})"


def _compared(rows: pd.DataFrame) -> _Compared:
    return _Compared(rows, best_of_kind(rows, "dense"), best_of_kind(rows, "features"))


def headline(compared: _Compared) -> str:
    """Return the sentence that compares the best sparse method with the best dense direction."""
    dense, sparse, first = compared.dense, compared.sparse, compared.first
    if pd.isna(first["effect"]):
        return (
            f"No strength within the KL budget (selection_kl) moves {compared.by} towards the "
            "target, so there is no effect to compare methods at."
        )
    moved = f"To raise {compared.by} by {number(first['effect'])} from "
    moved += f"{number(first['unsteered'])}"
    if not is_reached(dense) and not is_reached(sparse):
        return (
            "Neither the best dense direction nor the best sparse method raises "
            f"{moved.removeprefix('To raise ')}."
        )
    if not is_reached(dense):
        why = (
            "there is no dense direction"
            if dense is None
            else f"{name_of(dense)} does not get there"
        )
        return f"{moved}, {made_of(sparse)} costs {number(sparse['kl'])} nats per token; {why}."
    costs = (
        f"the best dense direction, {name_of(dense)}, costs {number(dense['kl'])} nats per token"
    )
    if not is_reached(sparse):
        why = "no method made of features was run"
        if sparse is not None:
            why = f"the best sparse method, {name_of(sparse)}, does not get there at any strength"
        return f"{moved}, {costs}; {why}."
    ratio = f"{number(sparse['kl_ratio'])} times as much ({interval(sparse, 'kl_ratio')})"
    return (
        f"{moved}, {costs}; the best sparse method, {made_of(sparse)}, "
        f"costs {number(sparse['kl'])}, {ratio}: {_conclusion(compared)}."
    )


def _call(row: pd.Series) -> str:
    """Say whether a ratio of costs is more than noise."""
    low, high = row["kl_ratio_ci_low"], row["kl_ratio_ci_high"]
    if pd.notna(high) and high < 1:
        return _SPARSE
    if pd.notna(low) and low > 1:
        return _DENSE
    return _UNDECIDED


def _conclusion(compared: _Compared) -> str:
    """Return the call, and what it rests on if a curve is read off below its first strength.

    Two curves that were chosen on the prompts of the comparison are not called different.
    """
    call = _call(compared.sparse)
    if call == _UNDECIDED:
        return call
    if chosen_on(compared.rows) == "reported":
        return _CHOSEN_HERE
    # No resample knows how a curve bends below its first strength.
    straight = if_straight(compared.dense, compared.sparse)
    call += f" by this interval{straight}; weaker strengths would tell" if straight else _SURE
    return call + _cheaper_dense(compared)


def _cheaper_dense(compared: _Compared) -> str:
    """Return what a call against the best dense direction leaves out: a dense one that costs less.

    The best was chosen on other prompts, and where no curve gets there on those, by its effect. A
    call against it says nothing of the others.
    """
    rows, dense = compared.rows, compared.dense
    others = rows[(rows["kind"] == "dense") & (rows["status"] == "reached")]
    least = others.sort_values("kl", kind="stable").iloc[0]
    if _call(compared.sparse) != _SPARSE or least["kl"] >= dense["kl"]:
        return ""
    return (
        f". This does not say that it is cheaper than {name_of(least)}, which costs "
        f"{number(least['kl'])} here"
    )


def _cheapest(compared: _Compared) -> str | None:
    """Name the curve with the least KL on the reported prompts, and count the dearer ones."""
    there = compared.rows[compared.rows["status"] == "reached"].sort_values("kl", kind="stable")
    if there.empty:
        return None
    least = there.iloc[0]
    text = (
        f"Of {len(compared.rows)} curves of effect against KL (one for each method, and for each "
        f"λ, ε or number of features of a program), {len(there)} reach the effect. The least KL on "
        f"the reported prompts is that of {name_of(least)}: {number(least['kl'])} nats per token "
        f"({interval(least, 'kl')}), at a perplexity of {number(least['perplexity'])}; as the "
        "least of several it is biased downwards."
    )
    low = there["kl_ratio_ci_low"]
    if low.notna().any() and chosen_on(compared.rows) != "reported":
        dearer = there[low > 1]
        straight = ""
        if len(dearer):
            straight = if_straight(compared.dense, *(row for _, row in dearer.iterrows()))
        text += (
            f" {len(dearer) or 'None'} of them cost more than the best dense direction, beyond "
            f"noise{straight}."
        )
    return text


def _not_reached(compared: _Compared) -> str | None:
    names = [name_of(row) for _, row in compared.rows.iterrows() if row["status"] == "not_reached"]
    return f"Never reach the effect: {', '.join(names)}." if names else None


def _selected(summary: pd.DataFrame, compared: _Compared) -> list[str]:
    """Say what the methods do at their selected strengths, and how many do anything."""
    steered = summary[(summary["method"] != BASELINE) & summary["effect"].notna()]
    if steered.empty:
        return []
    beyond = steered[(steered["effect_low"] > 0) | (steered["effect_high"] < 0)]
    found = [
        f"At the selected strengths, {len(beyond)} of {len(steered)} methods change the share of "
        "texts in the target class beyond noise."
    ]
    for row in (compared.dense, compared.sparse):
        own = steered[steered["method"] == row["method"]] if row is not None else steered[:0]
        for _, chosen in own.iterrows():
            count = number(round(chosen["features"], 1))
            features = f" with {count} feature{'s' * (count != '1')}"
            if pd.isna(chosen["features"]) or "features=" in str(chosen["strength"]):
                features = ""
            at = f"{chosen['method']} at {readable_label(chosen['strength'])}{features}"
            found.append(
                f"{at} changes the share of texts in the target class by "
                f"{chosen['effect']:+.3g} (95 % interval {chosen['effect_low']:+.3g} to "
                f"{chosen['effect_high']:+.3g}) at {number(chosen['kl'])} nats per token."
            )
    return found


def _prompts(first: pd.Series) -> str:
    return f"{first['n_prompts']:g} prompts with {_per_prompt(first)}"


def _per_prompt(first: pd.Series) -> str:
    each = first["n_texts"] / first["n_prompts"]
    return "one text each" if each <= 1 else f"{each:g} texts each"


def _by_judge(compared: _Compared) -> str | None:
    """Compare by a further judge or measure."""
    dense, sparse = compared.dense, compared.sparse
    if not (is_reached(dense) and is_reached(sparse)):
        return headline(compared) if pd.notna(compared.first["effect"]) else None
    return (
        f"By {compared.by}, at a change of {number(compared.first['effect'])}: "
        f"{made_of(sparse)} costs {number(sparse['kl_ratio'])} times the KL of {name_of(dense)} "
        f"({interval(sparse, 'kl_ratio')}): {_conclusion(compared)}."
    )


def _distrust(
    pareto: pd.DataFrame, compared: _Compared, quoted: Sequence[pd.Series | None]
) -> list[str]:
    """Return what to know before quoting: warnings of every row and of the rows quoted."""
    every: list[str] = []
    for cell in pareto["warnings"]:
        every += [text for text in warnings_in(cell) if text not in every]
    shared = [
        text for text in every if all(text in warnings_in(cell) for cell in pareto["warnings"])
    ]
    found = list(shared)
    about: dict[str, list[str]] = {}
    for row in quoted:
        if row is not None:
            for text in warnings_in(row["warnings"]):
                about.setdefault(text, []).append(name_of(row))
            own = pareto[(pareto["method"] == row["method"]) & is_true(pareto["selected"])]
            for text in (text for cell in own["warnings"] for text in warnings_in(cell)):
                if text not in shared:
                    about.setdefault(text, []).append(str(row["method"]))
    found += [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in about.items()]
    random = compared.rows[compared.rows["kind"] == "random"]
    for _, row in random[random["status"] == "reached"].iterrows():
        found.append(
            f"a random direction reaches the effect as well, at {number(row['kl'])} nats per "
            "token: the judge may count damaged texts as the target class"
        )
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Tables:
    """The tables of one run that its verdict is made from.

    Attributes:
        pareto: the table ``pareto``.
        matched: the table ``matched``.
        price: the table ``price``; None leaves its sentences out, as for the next two.
        differences: the table ``differences``.
        judges: the table ``judges``.
    """

    pareto: pd.DataFrame
    matched: pd.DataFrame
    price: pd.DataFrame | None = None
    differences: pd.DataFrame | None = None
    judges: pd.DataFrame | None = None


def verdict(
    tables: Tables, summary: pd.DataFrame, *, factor: float = 1.5, features: int = 12
) -> dict[str, Any]:
    """Return the verdict: the keys of ``verdict.json`` that docs/columns.md describes.

    Args:
        tables: of one run.
        summary: table ``summary`` of the same run.
        factor: how many times the KL of the best dense direction counts as near it.
        features: how many features are few.
    """
    pareto, matched = tables.pareto, tables.matched
    first = pareto.iloc[0]
    about = {name: first[name] for name in ("experiment", "model", "task", "layer", "seed")}
    if matched.empty:
        texts = {"headline": "No method steered, so there is nothing to compare.", "sentences": []}
        empty = dict.fromkeys(
            ["matched", "reference", "sparse", "few", "published", "fewest", "power"]
        )
        return json_value({**about, **texts, "distrust": [], **empty, "by_judge": []})
    groups = [_compared(rows) for _, rows in matched.groupby(["judge", "measure"], sort=False)]
    main, further = groups[0], groups[1:]
    sparse = None if main.sparse is None else str(main.sparse["method"])
    few = cheapest_with_few(main.rows, pareto, features)
    power = partial(power_sentences, prompts=_prompts(main.first), sparse=sparse)
    sentences: list[tuple[str, str | None]] = [
        ("cheapest", _cheapest(main)),
        ("reach", _not_reached(main)),
        ("few", few_sentence(main.rows, few, features, factor)),
        ("sparsity", sparsity_sentence(main.rows, factor)),
        *(("price", text) for text in _of(tables.price, price_sentences)),
        *(("selected", text) for text in _selected(summary, main)),
        *(("judges", _by_judge(group)) for group in further),
        *(("judges", text) for text in _of(tables.judges, judge_sentences)),
        *(("frontier", text) for text in frontier_sentences(pareto, main.sparse)),
        ("frontier", None if few is None else few_frontier(pareto, few, features)),
        *(("power", text) for text in _of(tables.differences, power)),
        ("setting", _setting(first, main)),
    ]
    fewest, published = fewest_features(main.rows, factor), as_published(main.rows)
    return json_value(
        {
            **about,
            "headline": headline(main) + _undetected(tables.differences, main.first),
            "sentences": [{"about": key, "text": text} for key, text in sentences if text],
            "distrust": [
                *_of(tables.differences, disagreements),
                *_opposite(groups),
                *_distrust(pareto, main, [main.dense, main.sparse, few, fewest, published]),
                *_of(tables.price, price_warnings),
            ],
            "matched": {name: main.first[name] for name in _MATCHED},
            "reference": _facts(main.dense),
            "sparse": _facts(main.sparse),
            "few": None if few is None else {**_facts(few), "features": features},
            "published": _facts(published),
            "fewest": None if fewest is None else {**_facts(fewest), "factor": factor},
            "power": None
            if tables.differences is None
            else power_facts(tables.differences, sparse),
            "by_judge": [
                {
                    "judge": group.first["judge"],
                    "measure": group.first["measure"],
                    "reference": _facts(group.dense),
                    "sparse": _facts(group.sparse),
                }
                for group in groups
            ],
        }
    )


def _of(table: pd.DataFrame | None, sentences: Callable[[pd.DataFrame], list[str]]) -> list[str]:
    return [] if table is None else sentences(table)


def _undetected(differences: pd.DataFrame | None, first: pd.Series) -> str:
    """Return what the headline adds if the run could not tell the matched effect from none."""
    if differences is None:
        return ""
    smallest = undetectable_effect(differences, first["effect"], first["measure"])
    if smallest is None:
        return ""
    return (
        f" This change is smaller than what the run detects ({smallest:.3g}): take more prompts or "
        "draws, or set a larger matched_effect."
    )


def _opposite(groups: list[_Compared]) -> list[str]:
    """Say that judges disagree on which of the two best methods is cheaper, each beyond noise."""
    calls: dict[str, list[str]] = {_SPARSE: [], _DENSE: []}
    for group in groups:
        chosen_here = chosen_on(group.rows) == "reported"
        if is_reached(group.dense) and is_reached(group.sparse) and not chosen_here:
            call = _call(group.sparse)
            if call in calls:
                calls[call].append(group.by)
    if not all(calls.values()):
        return []
    said = "; ".join(f"{call}{_SURE}: by {' and '.join(by)}" for call, by in calls.items())
    return [f"judges disagree on what is cheaper: {said}"]


_MATCHED = ("judge", "measure", "effect", "unsteered", "n_prompts", "n_texts")


def frontier_sentences(pareto: pd.DataFrame, sparse: pd.Series | None = None) -> list[str]:
    """Return whether the programs, and the best sparse method, are on the frontier.

    Args:
        pareto: the table ``pareto``.
        sparse: row of ``matched`` of the best sparse method. A program with counts of features is
            looked at with this count alone.
    """
    asked: list[tuple[str, str | None]] = [(name, None) for name in PUBLISHED_PROGRAMS]
    if sparse is not None:
        counted = "features=" in str(sparse["curve"])
        asked.append((sparse["method"], sparse["curve"] if counted else None))
    there = set(pareto["method"])
    return [
        frontier_verdict(pareto, name, swept)
        for name, swept in dict.fromkeys(asked)
        if name in there
    ]


def _setting(first: pd.Series, compared: _Compared) -> str:
    return (
        f"Measured on {first['model']} at layer {first['layer']:g}, task {first['task']}, seed "
        f"{first['seed']:g}: {compared.first['n_prompts']:g} reported prompts with "
        f"{_per_prompt(compared.first)}. {_CHOICE[chosen_on(compared.rows)]}"
    )


_CHOICE = {
    "validation": "The best of each kind is chosen on validation prompts that are not reported.",
    "effect": (
        "No curve reaches the effect on the validation prompts, which are not reported, so the "
        "best of each kind is the one with the largest effect there."
    ),
    "reported": "The best of each kind is chosen on the reported prompts.",
}


def _facts(row: pd.Series | None) -> dict[str, Any] | None:
    if row is None:
        return None
    named = {name: row[name] for name in ("method", "curve", "status", "strength", "kl", "l0")}
    for stem in ("kl", "l0", "kl_ratio"):
        named |= {stem: row[stem]}
        named |= {f"{stem}_{end}": row[f"{stem}_ci_{end}"] for end in ("low", "high")}
    return named


def spoken(found: Mapping[str, Any]) -> list[str]:
    """Return a verdict as lines: the headline, the sentences, and what to distrust."""
    lines = [found["headline"], *(entry["text"] for entry in found["sentences"])]
    return lines + [f"! {text}" for text in found["distrust"]]
