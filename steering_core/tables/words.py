"""Rows of the tables in words, for the sentences of verdicts, pages and pictures.

A strength and what is held fixed, a method with its features, a number with its interval, and
whether a method is on the frontier.
"""

from typing import Any, Literal

import pandas as pd

from steering_core.config.methods import is_adaptive
from steering_core.tables.caveats import INTERPOLATED, ON_REPORTED, warnings_in


def frontier_verdict(table: pd.DataFrame, method: str, strength_name: str | None = None) -> str:
    """Say at which strengths ``method`` is on the frontier, or which row beats it.

    A method that is not on the frontier is shown at its selected strength. If no strength was
    selected, the one with the least KL is shown, because the one with the highest rate would be a
    biased choice. The row that beats it is a selected strength of another method if there is one.

    Args:
        table: pareto table of one experiment, as ``columns.yaml`` describes it.
        method: a method in the table.
        strength_name: looks at the method's strengths with this name alone: at one count of
            features. None looks at all.

    Raises:
        ValueError: if the table has no row of ``method``, or none with that name.

    """
    own_name = table["strength_name"] == strength_name
    asked = (table["method"] == method) & (own_name if strength_name else True)
    rows = table[asked]
    if rows.empty:
        raise ValueError(f"method: the table has no {method}")
    if strength_name:
        method = f"{method} with {readable_held(strength_name)}"
    on = rows[is_true(rows["on_frontier"])]
    if len(on):
        points = ", ".join(
            _point(row, sure=True) for _, row in on.sort_values("kl_mean").iterrows()
        )
        return (
            f"{method} is on the frontier at {len(on)} of {len(rows)} strengths, over "
            f"{on['n_texts'].iloc[0]:g} prompts: {points}."
        )
    competing = table[table["on_frontier"].notna()]
    own = competing[asked[competing.index]]
    if own.empty:
        return (
            f"{method} is not on the frontier: none of its {len(rows)} strengths could steer every "
            "prompt and position (see feasible_fraction_prompts and unsolved_positions)."
        )
    chosen = own[is_true(own["selected"])]
    which = "its strength with the least KL" if chosen.empty else "its selected strength"
    shown = (own.sort_values("kl_mean") if chosen.empty else chosen).iloc[0]
    # None of these rows is on the frontier, so another row beats each of them.
    cost, rate = competing["kl_mean"], competing["classifier_rate_steered"]
    no_worse = (cost <= shown["kl_mean"]) & (rate >= shown["classifier_rate_steered"])
    differs = (cost < shown["kl_mean"]) | (rate > shown["classifier_rate_steered"])
    better = competing[no_worse & differs & ~asked[competing.index]]
    beats = (
        better.copy()
        .assign(chosen=is_true(better["selected"]))
        .sort_values(
            ["chosen", "validation_classifier_rate", "kl_mean"], ascending=[False, False, True]
        )
        .iloc[0]
    )
    return (
        f"{method} is not on the frontier: {which}, {_point(shown)}, is beaten by "
        f"{beats['method']} at {_point(beats)}, over {shown['n_texts']:g} prompts."
    )


def is_true(cells: pd.Series) -> pd.Series:
    """Return which cells of a column of booleans are true; an empty cell counts as false."""
    return cells.astype("boolean").fillna(False).astype(bool)


def headline_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first judge's rate, which come first in such tables as ``matched``."""
    if table.empty:
        return table
    first = table.iloc[0]
    return table[(table["judge"] == first["judge"]) & (table["measure"] == first["measure"])]


def strength_label(row: pd.Series) -> str:
    """Return ``alpha=0.5``, or ``tau=4 at lambda=0.1`` if the program has a fixed parameter."""
    name, at, held = str(row["strength_name"]).partition(" at ")
    return f"{name}={row['strength']:g}{at}{held}"


_SYMBOLS = {"alpha": "α", "tau": "τ", "lambda": "λ", "lam": "λ", "epsilon": "ε"}


def readable_strength(name: object, value: float) -> str:
    """Return a strength for readers: ``λ = 1, τ = 10``; the fixed parameter comes first.

    Args:
        name: what is swept, as in the column ``strength_name``: ``alpha``, or ``tau at lambda=1``;
            an empty cell leaves the name out.
        value: the strength; a missing one gives an empty text.

    """
    if pd.isna(value):
        return ""
    if pd.isna(name) or not str(name):
        return f"{value:g}"
    swept, held = str(name).partition(" at ")[0], readable_held(str(name))
    shown = f"{_SYMBOLS.get(swept, swept)} = {value:g}"
    return f"{held}, {shown}" if held else shown


def readable_held(name: str) -> str:
    """Return the fixed parameters of a sweep: ``λ = 1`` of ``tau at lambda=1``, or nothing."""
    fixed = name.partition(" at ")[2]
    parts = (part.strip().partition("=") for part in fixed.split(",") if fixed)
    return ", ".join(f"{_SYMBOLS.get(key, key)} = {at}" for key, _, at in parts)


def readable_label(label: str) -> str:
    """Return what :func:`strength_label` gives for readers, as :func:`readable_strength`."""
    swept, at, held = label.partition(" at ")
    name, _, value = swept.partition("=")
    return readable_strength(name + at + held, float(value))


def _point(row: pd.Series, *, sure: bool = False) -> str:
    """Return a point in words; ``sure`` adds how often resamples leave it on the frontier."""
    text = (
        f"{readable_strength(row['strength_name'], row['strength'])} (KL {row['kl_mean']:.3g}, "
        f"target rate {row['classifier_rate_steered']:.3g}"
    )
    if sure and pd.notna(row.get("frontier_probability")):
        text += f", on it in {row['frontier_probability']:.0%} of resamples of the prompts"
    return f"{text})"


def best_of_kind(rows: pd.DataFrame, kind: str) -> pd.Series | None:
    """Return the row of ``matched`` that is marked as the best of its kind."""
    own = rows[is_true(rows["best_of_kind"]) & (rows["kind"] == kind)]
    return None if own.empty else own.iloc[0]


def name_of(row: pd.Series) -> str:
    """Return the method with what its curve holds: ``qp_optimal with λ = 1``."""
    held = readable_held(str(row["curve"]))
    return f"{row['method']} with {held}" if held else str(row["method"])


def number(value: float) -> str:
    """Return three digits of a number."""
    return f"{value:.3g}"


def digits(value: Any, form: str = ".3g") -> str:
    """Return a number for a cell of a page: empty if it is missing, and 2304 for 2.3e+03."""
    if pd.isna(value):
        return ""
    return f"{value:.0f}" if form == ".3g" and abs(value) >= 1000 else format(float(value), form)


def bracketed(value: Any, low: Any, high: Any) -> str:
    """Return ``0.50 [0.40, 0.60]``; an empty text for a missing value.

    One missing end is open: 2.5 % of the resamples or more have no value there. Without both there
    is no interval.
    """
    if pd.isna(value):
        return ""
    missing = [end is None or pd.isna(end) for end in (low, high)]
    if all(missing):
        return digits(value)
    ends = ["open" if gone else digits(end) for gone, end in zip(missing, (low, high), strict=True)]
    return f"{digits(value)} [{', '.join(ends)}]"


def cell(text: Any) -> str:
    """Return a text that breaks no table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def interval(row: pd.Series, stem: str) -> str:
    """Return the 95 % interval of a cell in words; an end that is empty is said to be open.

    A multiple of a reference that does not get there in many resamples has no lower end either.
    """
    low, high = row[f"{stem}_ci_low"], row[f"{stem}_ci_high"]
    if pd.isna(low) and pd.isna(high):
        return "no interval"
    ends = "95 % interval "
    if stem == "kl_ratio" and low == 0:  # in too many resamples the reference is not there
        return f"{ends}without ends" if pd.isna(high) else f"{ends}up to {number(high)}"
    if pd.isna(high):
        return f"{ends}from {number(low)} upwards, without an end"
    return f"{ends}{number(low) if pd.notna(low) else 'without a start'} to {number(high)}"


def features_of(row: pd.Series) -> str:
    """Return the number of features of a sparse method."""
    count = row["l0"]
    text = "1 feature" if round(count, 1) == 1 else f"{number(round(count, 1))} features"
    return f"{text} at its first edit" if is_adaptive(row["method"]) else text


def called(row: pd.Series) -> str:
    """Return the same as :func:`name_of`, without a count of features."""
    return str(row["method"]) if "features=" in str(row["curve"]) else name_of(row)


def made_of(row: pd.Series) -> str:
    """Return a sparse method with its number of features, said once."""
    return f"{called(row)} with {features_of(row)}"


def is_reached(row: pd.Series | None) -> bool:
    """Return whether there is a row, and it reaches the effect."""
    return row is not None and row["status"] == "reached"


def chosen_on(rows: pd.DataFrame) -> Literal["validation", "effect", "reported"]:
    """Return what chooses the best curve of each kind among rows of one judge and measure.

    ``validation`` is the KL at the effect on validation prompts. ``effect`` is the largest effect
    there, where no curve reaches the matched one. ``reported`` is the KL on the reported prompts,
    without other ones; the least of several is then biased downwards.
    """
    if rows["validation_kl"].notna().any():
        return "validation"
    said = (text for cell in rows["warnings"] for text in warnings_in(cell))
    return "reported" if any(text.endswith(ON_REPORTED) for text in said) else "effect"


def if_straight(*rows: pd.Series | None) -> str:
    """Return what a comparison rests on if a curve of it is read off below its first strength.

    An effect that saturates makes such a curve too dear, the more so the stronger its first
    strength. No resampling knows of this. Empty if all curves have a strength as weak as the
    effect.

    Args:
        rows: of the table ``matched``.
    """
    below = (row is not None and INTERPOLATED in warnings_in(row["warnings"]) for row in rows)
    if not any(below):
        return ""
    return ", if the effect is proportional to √KL below the weakest strength that was run"
