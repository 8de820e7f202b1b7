"""What the page of results says of one experiment, and of the dictionaries of several.

Each part is read from the tables of the experiment alone, as cells and sentences that the template
``results.md.j2`` puts into Markdown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.storage.files import read_json
from steering_core.tables.words import (
    bracketed,
    cell,
    digits,
    headline_rows,
    is_true,
    readable_held,
    readable_label,
    readable_strength,
    strength_label,
)

#: Pictures of an experiment, in the order of the page, and what they show.
_PICTURES = {
    "matched.svg": "What each method costs at the same effect",
    "price.svg": "What sparsity costs at the same effect",
    "pareto.svg": "Effect against cost at every strength",
    "dose.svg": "Effect and cost over the size of what is added; hollow where texts are not fluent",
    "elsewhere.svg": "Effect against cost elsewhere",
}


def about_model(folder: Path) -> dict[str, Any]:
    """Return what the fetch stage of an experiment says; empty if the file is not there."""
    file = folder / "resources.json"
    return read_json(file) if file.is_file() else {}


def optional_table(file: Path) -> pd.DataFrame:
    """Return a table; an empty one if the file is not there."""
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def experiment_part(own: Path, link: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return what the page says of an experiment, from the tables in ``own``."""
    table = pd.read_csv(own / "pareto.csv")
    differences, judged = (
        optional_table(own / "differences.csv"),
        optional_table(own / "judges.csv"),
    )
    file = own / "verdict.json"
    verdict = read_json(file) if file.is_file() else {}
    first, base = table.iloc[0], table[table["method"] == BASELINE].iloc[0]
    methods = [method for method in table["method"].unique() if method != BASELINE]
    steered = is_true(table["selected"]) & (table["method"] != BASELINE)
    chosen = table[steered].sort_values("classifier_rate_steered", ascending=False)
    judges = judged["judge"].tolist() if len(judged) else []
    changes = _changes(differences, judges)
    # `n_texts` of pareto.csv counts prompts; the verdict has the number of texts.
    counted = verdict.get("matched") or first
    per_prompt = counted["n_texts"] / counted["n_prompts"]
    return {
        "name": first["experiment"],
        "link": link,
        "model": first["model"],
        "dtype": about.get("model", {}).get("dtype", ""),
        "layer": first["layer"],
        "prompts": f"{first['n_prompts']:g} prompts with {per_prompt:g} "
        f"{'text' if per_prompt == 1 else 'texts'} each",
        "base": bracketed(
            base["classifier_rate_base"],
            base["classifier_base_ci_low"],
            base["classifier_base_ci_high"],
        ),
        "judges": judges,
        "agreement": _agreement(judged),
        "headline": verdict.get("headline", ""),
        "sentences": [one["text"] for one in verdict.get("sentences", [])],
        "distrust": [cell(text) for text in verdict.get("distrust", [])],
        "rows": [_pareto_row(row, changes, judges) for _, row in chosen.iterrows()],
        "matched": _matched(optional_table(own / "matched.csv")),
        "prices": _prices(headline_rows(optional_table(own / "price.csv"))),
        "elsewhere": _elsewhere(
            optional_table(own / "elsewhere.csv"), optional_table(own / "guards.csv")
        ),
        "pictures": [
            (title, f"{link}/{name}")
            for name, title in _PICTURES.items()
            if (own / name).is_file() and not _shows_nothing(own, name)
        ],
        "no": _experiment_failures(first["experiment"], methods, chosen, changes, judges),
    }


def _shows_nothing(own: Path, picture: str) -> bool:
    """Whether a picture says that there is nothing to draw, as without counts of features."""
    return picture == "price.svg" and optional_table(own / "price.csv").empty


def _key(row: pd.Series) -> tuple[str, str]:
    return str(row["method"]), strength_label(row)


def _changes(
    differences: pd.DataFrame, judges: Sequence[str]
) -> dict[tuple[tuple[str, str], str], pd.Series]:
    """Return the row of ``differences`` against no steering, by method and strength and judge."""
    if differences.empty:
        return {}
    against = differences[differences["reference"] == BASELINE]
    return {
        (_key(row), row["judge"]): row for _, row in against.iterrows() if row["judge"] in judges
    }


def _pareto_row(row: pd.Series, changes: dict, judges: Sequence[str]) -> list[str]:
    cells = [
        f"`{row['method']}`",
        cell(readable_strength(row["strength_name"], row["strength"])),
        bracketed(
            row["classifier_rate_steered"], row["classifier_ci_low"], row["classifier_ci_high"]
        ),
    ]
    for judge in judges:
        change = changes.get((_key(row), judge))
        cells.append("" if change is None else _change(change, "rate_difference"))
    return [
        *cells,
        bracketed(row["kl_mean"], row["kl_ci_low"], row["kl_ci_high"]),
        digits(row["perplexity_steered"], ".1f"),
        digits(row["prompt_l0_mean"], ".1f"),
        "" if pd.isna(row["on_frontier"]) else ("yes" if row["on_frontier"] else "no"),
    ]


def _change(row: pd.Series, stem: str, ends: str = "_ci", form: str = ".2f") -> str:
    value, low, high = (row[f"{stem}{end}"] for end in ("", f"{ends}_low", f"{ends}_high"))
    if pd.isna(value):
        return ""
    return f"{value:+{form}}" + ("" if pd.isna(low) else f" [{low:+{form}}, {high:+{form}}]")


def _agreement(judged: pd.DataFrame) -> list[str]:
    """Say how far each further judge agrees with the headline judge."""
    if judged.empty:
        return []
    headline = judged.loc[is_true(judged["headline"]), "judge"].iloc[0]
    return [
        f"`{row['judge']}` and `{headline}` put "
        f"{bracketed(row['agreement'], row['agreement_ci_low'], row['agreement_ci_high'])} of the "
        f"texts that both put in a class in the same one (Cohen's κ {digits(row['kappa'])}); the "
        f"scores of all texts have a rank correlation of {digits(row['rank_correlation'])}."
        for _, row in judged.iterrows()
        if row["judge"] != headline and pd.notna(row["agreement"])
    ]


def _matched(table: pd.DataFrame) -> dict[str, Any] | None:
    """Return the costs at the same effect by the headline judge's rate, the cheapest first."""
    if table.empty or pd.isna(table.iloc[0]["effect"]):
        return None
    first = table.iloc[0]
    own = headline_rows(table)
    reached = own[own["status"] == "reached"].sort_values("kl", kind="stable")
    rows = [
        [
            f"`{row['method']}`",
            cell(readable_held(str(row["curve"]))),
            row["kind"],
            bracketed(row["kl"], row["kl_ci_low"], row["kl_ci_high"]),
            bracketed(row["kl_ratio"], row["kl_ratio_ci_low"], row["kl_ratio_ci_high"]),
            digits(row["l0"], ".1f"),
            digits(row["perplexity"], ".1f"),
        ]
        for _, row in reached.iterrows()
    ]
    return {
        "effect": digits(first["effect"], ".2f"),
        "unsteered": digits(first["unsteered"], ".2f"),
        "judge": first["judge"],
        "rows": rows,
        "n": len(own),
    }


def _prices(price: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what each number of features costs at the same effect, for each program."""
    if price.empty or pd.isna(price.iloc[0]["effect"]):
        return []
    return [
        {
            "program": str(name),
            "effect": digits(own.iloc[0]["effect"], ".2f"),
            "rows": [
                [
                    "dense" if pd.isna(row["features"]) else f"{row['features']:g}",
                    *(bracketed(row[k], row[f"{k}_ci_low"], row[f"{k}_ci_high"]) for k in _PRICES),
                    cell(str(row["status"]).replace("_", " ")),
                ]
                for _, row in own.iterrows()
            ],
        }
        for name, own in price.groupby("program", sort=False)
    ]


#: What a number of features costs at the same effect.
_PRICES = ("kl", "kl_ratio", "perplexity", "residual_norm")


def dictionaries_compared(prices: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Return the prices of several experiments side by side; None if all have one dictionary.

    The counts of features are those that all have. A price is the KL as a multiple of that of the
    dense program of the same experiment.
    """
    priced = {
        (name, str(program)): own
        for name, price in prices.items()
        if not price.empty and pd.notna(price.iloc[0]["effect"])
        for program, own in price.groupby("program", sort=False)
    }
    known = {tuple(digits(own.iloc[0][k]) for k in _OF_A_DICTIONARY) for own in priced.values()}
    if len(known) < 2:
        return None
    shared = set.intersection(*(set(own["features"].dropna()) for own in priced.values()))
    counts = sorted(shared)
    rows = []
    for (name, program), own in priced.items():
        first, by_count = own.iloc[0], own.set_index("features")
        cells = (by_count.loc[count] for count in counts)
        rows.append(
            [
                f"`{name}`: `{program}`",
                *(digits(first[column]) for column in (*_OF_A_DICTIONARY, "effect")),
                *(bracketed(*(row[f"kl_ratio{end}"] for end in _ENDS)) for row in cells),
            ]
        )
    return {"counts": [f"{count:g}" for count in counts], "rows": rows}


_ENDS = ("", "_ci_low", "_ci_high")
_OF_A_DICTIONARY = ("d_sae", "sae_l0", "sae_explained_variance")


def _elsewhere(table: pd.DataFrame, guards: pd.DataFrame) -> dict[str, Any] | None:
    """Return what each method changes on other text and tasks, and what guards cost and save."""
    if table.empty:
        return None
    measured = list(dict.fromkeys(zip(table["probe"], table["measure"], strict=True)))
    named = [f"{measure} ({probe})" for probe, measure in measured]
    strengths = table.drop_duplicates("method").set_index("method")["strength"]
    # The method that lost the fewest texts or questions has the counts for all.
    most = table.loc[table.groupby(["probe", "measure"], sort=False)["n"].idxmax()]
    counts = most.set_index(["probe", "measure"])["n"]
    rows, guarded, sentences = [], [], []
    for name, own in table.groupby("method", sort=False):
        cells = own.set_index(["probe", "measure"])
        first = own.iloc[0]
        at = _strength(first["strength"])
        start = [f"`{name}`", at, _change(first, "effect", "")]
        rows.append([*start, *(_changed(cells.loc[key], counts[key]) for key in measured)])
        if pd.isna(twin := first["unguarded_method"]):
            continue
        if twin in strengths and (without := _strength(strengths[twin])) != at:
            at += f"; without guards {without}"
        price = _price_of_guards(guards, str(name), str(first["strength"]))
        saved = [(cells.loc[key], "guard_change", "", ".3f") for key in measured]
        changes = {**price["changes"], **dict(zip(named, saved, strict=True))}
        shown = [_change(*change) if change else "" for change in changes.values()]
        guarded.append([f"`{name}`", f"`{twin}`", price["bound"], at, *shown])
        sentences.append(_moved_by_guards(str(name), str(twin), changes))
    return {
        "header": named,
        "unsteered": [digits(value) for value in most["unsteered"]],
        "counts": [f"{count:g}" for count in most["n"]],
        "rows": rows,
        "guards": guarded,
        "guard_header": [*_GUARD_CHANGES, *named],
        "guard_sentences": sentences,
    }


def _changed(row: pd.Series, count: int) -> str:
    """Return a change elsewhere, with its number of texts or questions if some are missing."""
    text = _change(row, "change", "", ".3f")
    return f"{text} (of {row['n']:g})" if text and row["n"] < count else text


def _strength(label: Any) -> str:
    """Return the strength of a row for readers; an empty cell for none."""
    return "" if pd.isna(label) else cell(readable_label(label))


#: Of what guards change on the prompts of the experiment: the columns of ``guards`` and their form.
_GUARD_CHANGES = {
    "target rate": ("classifier_rate_change", ".2f"),
    "KL (prompts)": ("kl_change", ".3f"),
    "features": ("l0_change", ".1f"),
}

_Change = tuple[pd.Series, str, str, str]


def _price_of_guards(guards: pd.DataFrame, method: str, strength: str) -> dict[str, Any]:
    """Return the bounds of a program's guards, and what they change on the prompts."""
    nothing: dict[str, _Change | None] = dict.fromkeys(_GUARD_CHANGES)
    if guards.empty:
        return {"bound": "", "changes": nothing}
    own = guards[guards["method"] == method]
    own = own[[strength_label(row) == strength for _, row in own.iterrows()]]
    if own.empty:
        return {"bound": "", "changes": nothing}
    bounds = own["kappa"].value_counts(sort=False)
    first = own.iloc[0]
    return {
        "bound": ", ".join(f"{kappa:g} on {count}" for kappa, count in bounds.items()),
        "changes": {
            name: (first, stem, "_ci", form) for name, (stem, form) in _GUARD_CHANGES.items()
        },
    }


def _moved_by_guards(method: str, twin: str, changes: dict[str, _Change | None]) -> str:
    """Say in words what guards raise and lower beyond noise."""
    up, down = [], []
    for name, change in changes.items():
        if change is None:
            continue
        row, stem, ends, _ = change
        if row[f"{stem}{ends}_low"] > 0:
            up.append(name)
        elif row[f"{stem}{ends}_high"] < 0:
            down.append(name)
    parts = [f"raises {', '.join(up)}"] * bool(up) + [f"lowers {', '.join(down)}"] * bool(down)
    moved = " and ".join(parts) or "changes nothing"
    return f"Beyond noise, `{method}` in place of `{twin}` {moved}."


def _experiment_failures(
    name: str, methods: Sequence[str], chosen: pd.DataFrame, changes: dict, judges: Sequence[str]
) -> list[str]:
    """Say which methods have no strength, and which do nothing that a judge can tell from noise."""
    found = []
    lacking = [f"`{method}`" for method in methods if method not in set(chosen["method"])]
    if lacking:
        found.append(
            f"{name}: no strength of {', '.join(lacking)} keeps to the KL budget and steers every "
            "validation prompt."
        )
    idle = []
    for _, row in chosen.iterrows():
        own = [changes.get((_key(row), judge)) for judge in judges]
        ends = [one["rate_difference_ci_low"] for one in own if one is not None]
        if ends and not any(end > 0 for end in ends):
            idle.append(f"`{row['method']}`")
    if idle:
        found.append(
            f"{name}: by no judge does the target rate of these methods rise beyond noise at their "
            f"selected strengths: {', '.join(idle)}."
        )
    return found
