"""The columns of every CSV file that the rules write, described as data, and the check of a table.

``columns.yaml`` beside this module describes them. ``python -m steering_core.tables.columns PAGE``
writes the descriptions into the sections of a Markdown page (docs/columns.md).

A table is checked where it is made, or in the script that writes it. Modules that answer questions
or train do not import this one, because their results would be made again whenever a column of any
table changes. What they write (``plans/{arm}.validation``, ``validation/{method}``) is checked by
tests.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from steering_core.storage.files import write_text

if TYPE_CHECKING:
    from steering_core.statistics.bootstrap import Interval

_DATA = Path(__file__).with_name("columns.yaml")
Kind = Literal["text", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column: its name, unit, meaning, and when its cells are empty ("" for never)."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    empty_when: str = ""


@dataclass(frozen=True)
class Table:
    """The columns of a table in order.

    Attributes:
        name: of its file, without ``.csv``. A wildcard of its rule stands in braces.
        columns: in order.
        key: the columns that together identify a row, beside ``experiment`` if there is one;
            empty if none do.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]


@cache
def tables() -> dict[str, Table]:
    """Return every described table by its name."""
    described = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return {
        name: Table(
            name,
            tuple(column for entry in table["columns"] for column in _columns(**entry)),
            tuple(table["key"]),
        )
        for name, table in described.items()
    }


def column_names(table: str) -> list[str]:
    """Return the names of a table's columns, in order."""
    return tables()[table].names


def _columns(
    name: str,
    unit: str,
    meaning: str,
    kind: Kind = "number",
    empty_when: str = "",
    interval: str | None = None,
) -> list[Column]:
    """Return a column, followed by both ends of its interval if it has one."""
    found = [Column(name, kind, unit, meaning, empty_when)]
    if interval is not None:
        for end, side in (("low", "lower"), ("high", "upper")):
            meaning = f"{name}: {side} end of its bootstrap 95 % interval"
            found.append(Column(f"{interval}_{end}", "number", unit, meaning, empty_when))
    return found


def made_table(rows: Sequence[Mapping[str, Any]], table: str) -> pd.DataFrame:
    """Return the rows as a table with the columns of ``table``, checked.

    Raises:
        ValueError: as :func:`validate_table`.
    """
    made = pd.DataFrame(list(rows), columns=column_names(table))
    validate_table(made, table)
    return made


def validate_table(df: pd.DataFrame, table: str) -> None:
    """Check that ``df`` fits the description of ``table`` and repeats no row.

    Raises:
        ValueError: if a column is missing, unknown, out of order or of the wrong kind, if a column
            that is never empty has an empty cell, or if two rows have the same key. The message
            names the fault.

    """
    described = tables()[table]
    names, expected = list(df.columns), described.names
    missing = [name for name in expected if name not in names]
    unknown = [name for name in names if name not in expected]
    if missing or unknown:
        raise ValueError(f"{table} table: missing columns {missing}, unknown columns {unknown}.")
    if names != expected:
        at = next(i for i, name in enumerate(expected) if names[i] != name)
        raise ValueError(
            f"{table} table: column {at} is {names[at]!r}, should be {expected[at]!r}."
        )
    for column in described.columns:
        _check_cells(df[column.name], column, table)
    key = list(described.key)
    of_experiment = ["experiment"] if "experiment" in names else []
    repeated = df[df.duplicated([*of_experiment, *key], keep=False)] if key else df[:0]
    if len(repeated):
        example = tuple(repeated.iloc[0][key])
        raise ValueError(
            f"{table} table: {len(repeated)} rows repeat {tuple(key)}, e.g. {example}."
        )


def _check_cells(values: pd.Series, column: Column, table: str) -> None:
    present = values.dropna()
    if not column.empty_when and len(present) < len(values):
        raise ValueError(f"{table} table: {column.name} has empty cells; it is never empty.")
    if present.empty:
        return
    flag = is_bool_dtype(present) or present.map(lambda value: value in (True, False)).all()
    fits = {
        "flag": flag and not present.map(lambda value: isinstance(value, str)).any(),
        "number": is_numeric_dtype(values) and not is_bool_dtype(values),
        "text": present.map(lambda value: isinstance(value, str)).all(),
    }
    if not fits[column.kind]:
        raise ValueError(f"{table} table: {column.name} must be a {column.kind} ({column.unit}).")


def interval_cells(name: str, stem: str, interval: "Interval") -> dict[str, float]:
    """Return the cells ``{name, stem_low, stem_high}``; a missing value is NaN, an empty cell.

    ``stem`` is the ``interval`` of the column in ``columns.yaml``.
    """
    cells = {name: interval.mean, f"{stem}_low": interval.low, f"{stem}_high": interval.high}
    return {key: np.nan if value is None else value for key, value in cells.items()}


def json_value(value: Any) -> Any:
    """Return a cell, or each of a mapping or a list of them, as JSON holds it.

    A number is a plain one, and an empty cell is None.
    """
    if isinstance(value, Mapping):
        return {key: json_value(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is not None and not isinstance(value, str) and pd.isna(value) else value


def describe(columns: Sequence[Column]) -> str:
    """Return the columns as a Markdown table: column, unit, meaning, empty when."""
    lines = ["| column | unit | meaning | empty when |", "|---|---|---|---|"]
    for column in columns:
        empty = column.empty_when or "never"
        lines.append(f"| `{column.name}` | {column.unit} | {column.meaning} | {empty} |")
    return "\n".join(lines) + "\n"


def rendered_page(page: str) -> str:
    """Return a Markdown page with a new table in each section ``# Columns of NAME.csv``."""
    for table in tables().values():
        section = re.compile(
            rf"(^#+ Columns of {re.escape(table.name)}\.csv\n.*?)^\| column .*?(?=^[^|]|\Z)",
            re.MULTILINE | re.DOTALL,
        )
        page = section.sub(lambda found, t=table: found[1] + describe(t.columns), page, count=1)
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_text(path, rendered_page(path.read_text(encoding="utf-8")))
