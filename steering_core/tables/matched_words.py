"""A row of the table ``matched`` in words: its method, its features, a number with its interval."""

import pandas as pd

from steering_core.config.methods import is_adaptive
from steering_core.tables.frontier_verdict import is_true

_SYMBOLS = {"lambda": "λ", "epsilon": "ε"}


def best_of_kind(rows: pd.DataFrame, kind: str) -> pd.Series | None:
    """Return the row of ``matched`` that is marked as the best of its kind."""
    own = rows[is_true(rows["best_of_kind"]) & (rows["kind"] == kind)]
    return None if own.empty else own.iloc[0]


def name_of(row: pd.Series) -> str:
    """Return the method with what its curve holds: ``qp_optimal with λ = 1``."""
    _, at, held = str(row["curve"]).partition(" at ")
    if not at:
        return str(row["method"])
    parts = (part.strip().partition("=") for part in held.split(","))
    return f"{row['method']} with " + ", ".join(
        f"{_SYMBOLS.get(key, key)} = {value}" for key, _, value in parts
    )


def number(value: float) -> str:
    """Return three digits of a number."""
    return f"{value:.3g}"


def interval(row: pd.Series, stem: str) -> str:
    """Return the 95 % interval of a cell in words; an end that is empty is said to be open."""
    low, high = row[f"{stem}_ci_low"], row[f"{stem}_ci_high"]
    if pd.isna(low) and pd.isna(high):
        return "no interval"
    ends = "95 % interval "
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
