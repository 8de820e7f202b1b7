"""A described column of a table, and a check that a table keeps to its description."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

Kind = Literal["text", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column: its name, unit, meaning, and when its cells are empty ("" for never)."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    empty_when: str = ""


_LOW, _HIGH = "lower end of its bootstrap 95 % interval", "upper end of its bootstrap 95 % interval"


def interval_columns(stem: str, of: str, unit: str, empty_when: str) -> tuple[Column, Column]:
    """Both ends of the interval of a mean: ``{stem}_low`` and ``{stem}_high``."""
    return (
        Column(f"{stem}_low", "number", unit, f"{of}: {_LOW}", empty_when),
        Column(f"{stem}_high", "number", unit, f"{of}: {_HIGH}", empty_when),
    )


def validate_table(
    df: pd.DataFrame, what: str, columns: Sequence[Column], key: Sequence[str]
) -> None:
    """Check that ``df`` has these columns and no row twice.

    Args:
        df: the table.
        what: its name, for messages.
        columns: what it should hold, in order; ``experiment`` among them.
        key: columns that tell the rows of an experiment apart.

    Raises:
        ValueError: naming what is wrong: a column missing, unknown or out of order; an empty cell
            in a column that is never empty; a column of the wrong kind; or two rows of one
            experiment with the same key.

    """
    names, expected = list(df.columns), [column.name for column in columns]
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected]
    if missing or unknown:
        raise ValueError(f"{what} table: missing columns {missing}, unknown columns {unknown}.")
    if names != expected:
        at = next(i for i, name in enumerate(expected) if names[i] != name)
        raise ValueError(f"{what} table: column {at} is {names[at]!r}, should be {expected[at]!r}.")
    for column in columns:
        _check_cells(df[column.name], column, what)
    repeated = df[df.duplicated(["experiment", *key], keep=False)]
    if len(repeated):
        example = tuple(repeated.iloc[0][list(key)])
        raise ValueError(f"{what} table: {len(repeated)} rows repeat {tuple(key)}, e.g. {example}.")


def describe(columns: Sequence[Column]) -> str:
    """Render the columns as a Markdown table: column, unit, meaning, empty when."""
    lines = ["| column | unit | meaning | empty when |", "|---|---|---|---|"]
    for column in columns:
        empty = column.empty_when or "never"
        lines.append(f"| `{column.name}` | {column.unit} | {column.meaning} | {empty} |")
    return "\n".join(lines) + "\n"


def _check_cells(values: pd.Series, column: Column, what: str) -> None:
    present = values.dropna()
    if not column.empty_when and len(present) < len(values):
        raise ValueError(f"{what} table: {column.name} has empty cells; it is never empty.")
    if present.empty:
        return
    flag = is_bool_dtype(present) or present.map(lambda value: value in (True, False)).all()
    fits = {
        "flag": flag and not present.map(lambda value: isinstance(value, str)).any(),
        "number": is_numeric_dtype(values) and not is_bool_dtype(values),
        "text": present.map(lambda value: isinstance(value, str)).all(),
    }
    if not fits[column.kind]:
        raise ValueError(f"{what} table: {column.name} must be a {column.kind} ({column.unit}).")
