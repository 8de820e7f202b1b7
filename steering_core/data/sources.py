"""Read the rows of a dataset, from the hub or from local files, without changing their texts.

pandas guesses when it reads a CSV file: it drops the zeros of "007", writes "TRUE" as "True" and
moves the columns of a file whose rows all have one field too many. Here such a row is an error.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import is_offline_mode

from steering_core.errors import DataError, ModelError, clipped
from steering_core.hub.errors import HubUnavailableError, explain_hub_errors
from steering_core.hub.revisions import pin
from steering_core.storage.integrity import named_digest

_LONGEST_FIELD = 2**31 - 1  # of a CSV file, in characters; the csv module stops at 131072
#: Suffixes of other tables that a directory of CSV files may hold.
_OTHER_TABLES = {".parquet", ".arrow", ".json", ".jsonl", ".tsv"}


def read_rows(dataset: str, subset: str | None, split: str, revision: str) -> pd.DataFrame:
    """Return the rows of one split.

    Args:
        dataset: id on the hub, or a local file or directory.
        subset: of the dataset; None if it has only one.
        split: of the dataset; a local file has none.
        revision: commit on the hub; a local file or directory has none.

    Raises:
        DataError: if a local file is missing, damaged or of an unknown form, or there is no such
            subset or split.
        ModelError: if the hub refuses, with what to do.
    """
    if is_file(dataset):
        _require_file(dataset)
        return read_file(dataset)
    if Path(dataset).is_file():
        raise DataError(f"dataset: {dataset} is none of {', '.join(sorted(READERS))}")
    # Imported here because it takes most of a second, and only the fetch stage reads a dataset.
    import datasets

    with explain_hub_errors(dataset):
        try:
            local = Path(dataset).is_dir()
            as_texts: dict[str, Any] = {}
            if local and (columns := csv_columns(dataset)):
                features = datasets.Features({name: datasets.Value("string") for name in columns})
                # Else "007" would become 7, and "NA" a missing text.
                as_texts = {"features": features, "keep_default_na": False, "na_values": [""]}
            commit = None if local else revision
            builder = datasets.load_dataset_builder(dataset, subset, revision=commit, **as_texts)
            # Without an answer of the hub, datasets returns the rows that it prepared last.
            if not local and builder.hash != revision:
                raise _not_there(dataset, revision, f"rows of commit {builder.hash}")
            builder.download_and_prepare()
            return builder.as_dataset(split=split).to_pandas()
        except ValueError as error:
            if "in the cache" in str(error):  # no answer, and this subset was never prepared
                raise _not_there(dataset, revision, "other subsets") from error
            # Unknown subset or split; the message lists the known ones.
            raise DataError(
                f"dataset {dataset}: {error} Check the task's subset and split."
            ) from error


def dataset_revision(dataset: str, revision: str) -> str:
    """Return the commit of a dataset on the hub, or a digest of a local file or directory.

    Raises:
        DataError: if a local file is missing.
        ModelError: if the hub refuses, with what to do.
    """
    if Path(dataset).is_dir() or not (is_file(dataset) or Path(dataset).is_file()):
        return pin(dataset, revision, "dataset")
    _require_file(dataset)
    return named_digest(dataset)


def _require_file(dataset: str) -> None:
    if not Path(dataset).is_file():
        raise DataError(f"dataset: there is no file {dataset}")


def _not_there(dataset: str, revision: str, cached: str) -> ModelError:
    """Return the error about rows that only the hub has; with a network it is worth a retry."""
    lacks = f"the local cache holds {cached}, not the rows of commit {revision}"
    if is_offline_mode():
        return ModelError(
            f"{dataset}: {lacks}: run the fetch rule where there is a network, with the same "
            "HF_HOME."
        )
    return HubUnavailableError(f"{dataset}: the hub does not send the rows, and {lacks}.")


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
    except (ValueError, RecursionError) as error:  # pyarrow's errors are ValueErrors too
        raise DataError(f"dataset: {path} cannot be read: {error}") from error


def csv_columns(folder: str | Path) -> list[str] | None:
    """Return the columns of a directory of CSV files; None if files differ or are not all CSV.

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
    """Return a column of texts as whole numbers, booleans or scores, if all its texts are such.

    If a number has leading zeros, the column stays text. Missing values stay missing.
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
    # newline="" keeps line ends inside quotes; utf-8-sig removes a byte-order mark.
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
    """Yield the first and the last line of each row of a csv reader, from 1, and its fields."""
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
            if "\\ud" in line.casefold():  # half of a surrogate pair, which UTF-8 cannot encode
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
