"""Read a table from a local file without changing its texts.

pandas would guess: it drops the zeros of "007", writes "TRUE" as "True" and moves the columns of a
CSV file whose rows all have one field too many. Here a row that does not fit is an error.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from steering_core.errors import DataError, clipped

_LONGEST_FIELD = 2**31 - 1  # of a CSV file, in characters; the csv module stops at 131072
#: Of a directory that is not made of CSV files alone.
_OTHER_TABLES = {".parquet", ".arrow", ".json", ".jsonl", ".tsv"}


def is_file(dataset: str) -> bool:
    """Whether ``dataset`` names a local file rather than a directory or a hub repository."""
    return Path(dataset).suffix in READERS


def read_file(path: str | Path) -> pd.DataFrame:
    """Return the rows of a Parquet, CSV or JSON Lines file.

    In a CSV file every value is a text and an empty field is missing. In a JSON Lines file values
    keep the type that JSON gives them.

    Raises:
        DataError: if the file is damaged, is not UTF-8, or a row does not fit the others; the
            message names the line.
    """
    try:
        return READERS[Path(path).suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"dataset: {path} cannot be read: {error}. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:  # ValueError: pyarrow's errors too
        raise DataError(f"dataset: {path} cannot be read: {error}") from error


def csv_columns(folder: str | Path) -> list[str] | None:
    """Return the columns of a directory of CSV files; None if they differ or others are there.

    Every file is read once, so that a row that does not fit is an error here too.

    Raises:
        DataError: as :func:`read_file`.
    """
    files = sorted(Path(folder).rglob("*.csv"))
    columns = [list(read_file(path).columns) for path in files]
    others = any(path.suffix in _OTHER_TABLES for path in Path(folder).rglob("*"))
    alike = bool(columns) and all(found == columns[0] for found in columns)
    return columns[0] if alike and not others else None


def numbers_from_text(column: pd.Series) -> pd.Series:
    """Return a column of texts as whole numbers, booleans or scores, if all of it is written so.

    Numbers with leading zeros stay texts. Missing values stay missing.
    """
    written = column.dropna().astype(str)
    if written.str.fullmatch(r"[+-]?0\d+").any():
        return column
    if set(written.str.casefold()) <= {"true", "false"}:
        return column.map(lambda text: text if pd.isna(text) else text.casefold() == "true")
    if not written.str.fullmatch(r"[+-]?[\d.]+(?:[eE][+-]?\d+)?").all():
        return column  # pandas would take "nan" and "infinity" for numbers
    try:
        return pd.to_numeric(column)
    except ValueError:  # as "1.2.3"
        return column


def _read_csv(path: str | Path) -> pd.DataFrame:
    # newline="" keeps the line ends inside quotes; utf-8-sig takes a byte-order mark away.
    with Path(path).open(encoding="utf-8-sig", newline="") as file, _long_fields():
        lines = csv.reader(file, strict=True)
        header: list[str] | None = None
        rows = []
        for first, last, fields in _numbered(lines):
            if not any(field.strip() for field in fields) and len(fields) < 2:
                continue  # an empty line
            if header is None:
                header = fields
            elif len(fields) != len(header):
                lines_of_row = f"line {first}" if first == last else f"lines {first} to {last}"
                raise ValueError(
                    f"{lines_of_row} has {len(fields)} fields, the header has {len(header)}: "
                    f"{clipped(','.join(fields))}. Put double quotes around a text with a comma "
                    'or a line end in it: "a, b".'
                )
            else:
                rows.append([field or None for field in fields])
    if header is None:
        raise ValueError("it is empty.")
    if twice := [name for name, n in Counter(header).items() if n > 1]:
        raise ValueError(f"it has two columns {twice[0]!r}.")
    return pd.DataFrame(rows, columns=header, dtype=object)


def _numbered(lines: Any) -> Iterator[tuple[int, int, list[str]]]:
    """The rows of a csv reader with the first and last line of each, counted from 1."""
    while True:
        first = lines.line_num + 1
        try:
            fields = next(lines, None)
        except csv.Error as error:
            raise ValueError(
                f"the row that starts in line {first} has a double quote that does not fit "
                f"({error}). A double quote inside a quoted text is written twice."
            ) from error
        if fields is None:
            return
        yield first, lines.line_num, fields


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_json_lines(path: str | Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    with Path(path).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(
                    f"line {number} is not an object: {clipped(line.strip())}. A .jsonl file has "
                    'one object a line, as {"text": "…", "label": 0}, and no list around them.'
                )
            if "\\ud" in line.casefold():  # half of a surrogate pair, which no file can hold
                try:
                    json.dumps(row, ensure_ascii=False).encode()
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"line {number} cannot be written as UTF-8: {error}"
                    ) from error
            rows.append(row)
    if not rows:
        raise ValueError("it is empty.")
    return pd.DataFrame(rows)


READERS: dict[str, Callable[[str | Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
}
