"""The answer of an experiment: the table ``summary``, and the verdict in words.

Each sentence is made from cells of the tables by a rule, and left out if a cell that it needs is
empty. A difference is called one only if its interval says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE, is_adaptive
from steering_core.tables.caveats import warnings_in
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.effect_curves import curve_names
from steering_core.tables.evidence import (
    disagreements,
    judge_sentences,
    power_facts,
    power_sentences,
)
from steering_core.tables.frontier_verdict import frontier_verdict, is_true, strength_label
from steering_core.tables.price import price_sentences

_SYMBOLS = {"lambda": "λ", "epsilon": "ε"}
_SPARSE = "the sparse method is cheaper, beyond noise"
_DENSE = "the dense direction is cheaper, beyond noise"
#: Programs whose place on the frontier is always stated, besides the best sparse method.
_PROGRAMS = ("qp_optimal", "convex_optimal")


def summary_table(
    pareto: pd.DataFrame, matched: pd.DataFrame, effect_curves: pd.DataFrame
) -> pd.DataFrame:
    """Return the table ``summary``: a row per method, at its selected strength.

    Args:
        pareto: pareto table of one experiment.
        matched: table ``matched`` of the same run.
        effect_curves: table ``effect_curves`` of the same run.
    """
    effects, costs = (_headline(table) for table in (effect_curves, matched))
    key = ["method", "curve", "strength"]
    points = pareto.assign(**curve_names(pareto)).merge(
        effects[[*key, "effect", "effect_ci_low", "effect_ci_high"]], on=key, how="left"
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


def _headline(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first judge's rate, which come first."""
    if table.empty:
        return table
    first = table.iloc[0]
    return table[(table["judge"] == first["judge"]) & (table["measure"] == first["measure"])]


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
    best = rows[is_true(rows["best_of_kind"])]
    found = {kind: best[best["kind"] == kind] for kind in ("dense", "features")}
    dense, sparse = (None if own.empty else own.iloc[0] for own in found.values())
    return _Compared(rows, dense, sparse)


def _name(row: pd.Series) -> str:
    """Return the method with what its curve holds: ``qp_optimal with λ = 1``."""
    _, at, held = str(row["curve"]).partition(" at ")
    if not at:
        return str(row["method"])
    parts = (part.strip().partition("=") for part in held.split(","))
    return f"{row['method']} with " + ", ".join(
        f"{_SYMBOLS.get(key, key)} = {value}" for key, _, value in parts
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(row: pd.Series, stem: str) -> str:
    """Return the 95 % interval of a cell in words; an end that is empty is said to be open."""
    low, high = row[f"{stem}_ci_low"], row[f"{stem}_ci_high"]
    if pd.isna(low) and pd.isna(high):
        return "no interval"
    ends = "95 % interval "
    if pd.isna(high):
        return f"{ends}from {_number(low)} upwards, without an end"
    return f"{ends}{_number(low) if pd.notna(low) else 'without a start'} to {_number(high)}"


def _features(row: pd.Series) -> str:
    count = row["l0"]
    text = "1 feature" if round(count, 1) == 1 else f"{_number(round(count, 1))} features"
    return f"{text} at its first edit" if is_adaptive(row["method"]) else text


def _made_of(row: pd.Series) -> str:
    """Return a sparse method with its number of features, said once."""
    name = str(row["method"]) if "features=" in str(row["curve"]) else _name(row)
    return f"{name} with {_features(row)}"


def _reached(row: pd.Series | None) -> bool:
    return row is not None and row["status"] == "reached"


def headline(compared: _Compared) -> str:
    """Return the sentence that compares the best sparse method with the best dense direction."""
    dense, sparse, first = compared.dense, compared.sparse, compared.first
    if pd.isna(first["effect"]):
        return (
            f"No strength within selection_kl moves {compared.by} towards the target, so there is "
            "no effect to compare methods at."
        )
    moved = f"To raise {compared.by} by {_number(first['effect'])} from "
    moved += f"{_number(first['unsteered'])}"
    if not _reached(dense) and not _reached(sparse):
        return (
            "Neither the best dense direction nor the best sparse method raises "
            f"{moved.removeprefix('To raise ')}."
        )
    if not _reached(dense):
        why = (
            "there is no dense direction" if dense is None else f"{_name(dense)} does not get there"
        )
        return f"{moved}, {_made_of(sparse)} costs {_number(sparse['kl'])} nats per token; {why}."
    costs = f"the best dense direction, {_name(dense)}, costs {_number(dense['kl'])} nats per token"
    if not _reached(sparse):
        why = "no method made of features was run"
        if sparse is not None:
            why = f"the best sparse method, {_name(sparse)}, does not get there at any strength"
        return f"{moved}, {costs}; {why}."
    ratio = f"{_number(sparse['kl_ratio'])} times as much ({_interval(sparse, 'kl_ratio')})"
    return (
        f"{moved}, {costs}; the best sparse method, {_made_of(sparse)}, "
        f"costs {_number(sparse['kl'])}, {ratio}: {_call(sparse)}."
    )


def _call(row: pd.Series) -> str:
    """Say whether a ratio of costs is more than noise."""
    low, high = row["kl_ratio_ci_low"], row["kl_ratio_ci_high"]
    if pd.notna(high) and high < 1:
        return _SPARSE
    if pd.notna(low) and low > 1:
        return _DENSE
    return "this run cannot tell the two apart"


def _cheapest(compared: _Compared) -> str | None:
    """Name the curve with the least KL on the reported prompts, and what it is not told from."""
    there = compared.rows[compared.rows["status"] == "reached"].sort_values("kl", kind="stable")
    if there.empty:
        return None
    least = there.iloc[0]
    text = (
        f"Of {len(compared.rows)} curves, {len(there)} reach the effect. The least KL on the "
        f"reported prompts is that of {_name(least)}: {_number(least['kl'])} nats per token "
        f"({_interval(least, 'kl')}), at a perplexity of {_number(least['perplexity'])}; as the "
        "least of several it is biased downwards."
    )
    low = there["kl_ratio_ci_low"]
    if low.notna().any():
        dearer = there[low > 1]
        text += f" {len(dearer)} of them cost more than the best dense direction, beyond noise."
    return text


def _not_reached(compared: _Compared) -> str | None:
    names = [_name(row) for _, row in compared.rows.iterrows() if row["status"] == "not_reached"]
    return f"Never reach the effect: {', '.join(names)}." if names else None


def fewest_features(rows: pd.DataFrame, factor: float) -> pd.Series | None:
    """Return the row with the fewest features whose KL is at most ``factor`` times the reference's.

    Args:
        rows: rows of ``matched`` of one judge and measure.
        factor: largest ratio of KL to that of the best dense direction.
    """
    within = rows[(rows["kind"] == "features") & (rows["kl_ratio"] <= factor)]
    return None if within.empty else within.sort_values(["l0", "kl"], kind="stable").iloc[0]


def _sparsity(compared: _Compared, factor: float) -> str | None:
    rows = compared.rows
    sparse = rows[(rows["kind"] == "features") & rows["kl_ratio"].notna()]
    if sparse.empty:
        return None
    found = fewest_features(rows, factor)
    ends = sparse.sort_values(["l0", "kl"], kind="stable")
    if found is None:
        near = sparse.sort_values("kl_ratio", kind="stable").iloc[0]
        text = (
            f"No method made of features comes within {factor:g} times the KL of the best dense "
            f"direction. The nearest is {_made_of(near)}, at "
            f"{_number(near['kl_ratio'])} times ({_interval(near, 'kl_ratio')})."
        )
    else:
        near = found
        high = found["kl_ratio_ci_high"]
        sure = pd.notna(high) and high <= factor
        text = (
            f"{_features(found)} {'comes' if round(found['l0'], 1) == 1 else 'come'} within "
            f"{factor:g} times the KL of the best dense direction: {_name(found)}, "
            f"at {_number(found['kl_ratio'])} times ({_interval(found, 'kl_ratio')})."
        )
        if not sure:
            text += f" The interval does not rule out more than {factor:g} times."
    least = ends.iloc[0]
    if (least["method"], least["curve"]) != (near["method"], near["curve"]):
        text += (
            f" The sparsest, {_made_of(least)}, needs "
            f"{_number(least['kl_ratio'])} times ({_interval(least, 'kl_ratio')})."
        )
    return text


def _selected(summary: pd.DataFrame, compared: _Compared) -> list[str]:
    """Say what the methods do at their selected strengths, and how many do anything."""
    steered = summary[(summary["method"] != BASELINE) & summary["effect"].notna()]
    if steered.empty:
        return []
    beyond = steered[steered["effect_low"] > 0]
    found = [
        f"At the selected strengths, {len(beyond)} of {len(steered)} methods change the share of "
        "texts in the target class beyond noise."
    ]
    for row in (compared.dense, compared.sparse):
        own = steered[steered["method"] == row["method"]] if row is not None else steered[:0]
        for _, chosen in own.iterrows():
            features = ""
            if pd.notna(chosen["features"]):
                features = f" with {_number(round(chosen['features'], 1))} features"
            found.append(
                f"{chosen['method']} at {chosen['strength']}{features}: {chosen['effect']:+.3g} "
                f"(95 % interval {chosen['effect_low']:+.3g} to {chosen['effect_high']:+.3g}) at "
                f"{_number(chosen['kl'])} nats per token."
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
    if not (_reached(dense) and _reached(sparse)):
        return (
            f"By {compared.by}: {headline(compared)}"
            if pd.notna(compared.first["effect"])
            else None
        )
    return (
        f"By {compared.by}, at a change of {_number(compared.first['effect'])}: "
        f"{_made_of(sparse)} costs {_number(sparse['kl_ratio'])} times the KL of {_name(dense)} "
        f"({_interval(sparse, 'kl_ratio')}): {_call(sparse)}."
    )


def _distrust(pareto: pd.DataFrame, compared: _Compared) -> list[str]:
    """Return what to know before quoting: warnings of every row and of the rows quoted."""
    every: list[str] = []
    for cell in pareto["warnings"]:
        every += [text for text in warnings_in(cell) if text not in every]
    shared = [
        text for text in every if all(text in warnings_in(cell) for cell in pareto["warnings"])
    ]
    found = list(shared)
    for row in (compared.dense, compared.sparse):
        if row is not None:
            found += [f"{_name(row)}: {text}" for text in warnings_in(row["warnings"])]
            own = pareto[(pareto["method"] == row["method"]) & is_true(pareto["selected"])]
            for cell in own["warnings"]:
                found += [
                    f"{row['method']}: {text}" for text in warnings_in(cell) if text not in shared
                ]
    random = compared.rows[compared.rows["kind"] == "random"]
    for _, row in random[random["status"] == "reached"].iterrows():
        found.append(
            f"a random direction reaches the effect as well, at {_number(row['kl'])} nats per "
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


def verdict(tables: Tables, summary: pd.DataFrame, *, factor: float = 1.5) -> dict[str, Any]:
    """Return the verdict: the keys of ``verdict.json`` that docs/columns.md describes.

    Args:
        tables: of one run.
        summary: table ``summary`` of the same run.
        factor: how many times the KL of the best dense direction counts as near it.
    """
    pareto, matched = tables.pareto, tables.matched
    first = pareto.iloc[0]
    about = {name: first[name] for name in ("experiment", "model", "task", "layer", "seed")}
    if matched.empty:
        texts = {"headline": "No method steered, so there is nothing to compare.", "sentences": []}
        empty = dict.fromkeys(["matched", "reference", "sparse", "fewest", "power"])
        return _plain({**about, **texts, "distrust": [], **empty, "by_judge": []})
    groups = [_compared(rows) for _, rows in matched.groupby(["judge", "measure"], sort=False)]
    main, further = groups[0], groups[1:]
    sparse = None if main.sparse is None else str(main.sparse["method"])
    power = partial(power_sentences, prompts=_prompts(main.first), sparse=sparse)
    sentences: list[tuple[str, str | None]] = [
        ("cheapest", _cheapest(main)),
        ("reach", _not_reached(main)),
        ("sparsity", _sparsity(main, factor)),
        *(("price", text) for text in _of(tables.price, price_sentences)),
        *(("selected", text) for text in _selected(summary, main)),
        *(("judges", _by_judge(group)) for group in further),
        *(("judges", text) for text in _of(tables.judges, judge_sentences)),
        *(("frontier", text) for text in frontier_sentences(pareto, main.sparse)),
        *(("power", text) for text in _of(tables.differences, power)),
        ("setting", _setting(first, main)),
    ]
    fewest = fewest_features(main.rows, factor)
    return _plain(
        {
            **about,
            "headline": headline(main),
            "sentences": [{"about": key, "text": text} for key, text in sentences if text],
            "distrust": [
                *_of(tables.differences, disagreements),
                *_opposite(groups),
                *_distrust(pareto, main),
            ],
            "matched": {name: main.first[name] for name in _MATCHED},
            "reference": _facts(main.dense),
            "sparse": _facts(main.sparse),
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


def _opposite(groups: list[_Compared]) -> list[str]:
    """Say that judges disagree on which of the two best methods is cheaper, each beyond noise."""
    calls: dict[str, list[str]] = {_SPARSE: [], _DENSE: []}
    for group in groups:
        if _reached(group.dense) and _reached(group.sparse):
            call = _call(group.sparse)
            if call in calls:
                calls[call].append(group.by)
    if not all(calls.values()):
        return []
    said = "; ".join(f"{call}: by {' and '.join(by)}" for call, by in calls.items())
    return [f"judges disagree on what is cheaper: {said}"]


_MATCHED = ("judge", "measure", "effect", "unsteered", "n_prompts", "n_texts")


def frontier_sentences(pareto: pd.DataFrame, sparse: pd.Series | None = None) -> list[str]:
    """Return whether the programs, and the best sparse method, are on the frontier."""
    names = [*_PROGRAMS] if sparse is None else [*_PROGRAMS, sparse["method"]]
    there = set(pareto["method"])
    return [frontier_verdict(pareto, name) for name in dict.fromkeys(names) if name in there]


def _setting(first: pd.Series, compared: _Compared) -> str:
    return (
        f"Measured on {first['model']} at layer {first['layer']:g}, task {first['task']}, seed "
        f"{first['seed']:g}: {compared.first['n_prompts']:g} reported prompts with "
        f"{_per_prompt(compared.first)}. The best of each kind is chosen on "
        + (
            "validation prompts that are not reported."
            if compared.rows["validation_kl"].notna().any()
            else "the reported prompts, for lack of an effect on validation prompts."
        )
    )


def _facts(row: pd.Series | None) -> dict[str, Any] | None:
    if row is None:
        return None
    named = {name: row[name] for name in ("method", "curve", "status", "strength", "kl", "l0")}
    for stem in ("kl", "l0", "kl_ratio"):
        named |= {stem: row[stem]}
        named |= {f"{stem}_{end}": row[f"{stem}_ci_{end}"] for end in ("low", "high")}
    return named


def _plain(value: Any) -> Any:
    """Return ``value`` for JSON: plain numbers, and None for an empty cell."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is not None and not isinstance(value, str) and pd.isna(value) else value


def spoken(found: Mapping[str, Any]) -> list[str]:
    """Return a verdict as lines: the headline, the sentences, and what to distrust."""
    lines = [found["headline"], *(entry["text"] for entry in found["sentences"])]
    return lines + [f"! {text}" for text in found["distrust"]]
