"""The columns of a dataset: their values are checked, and texts that are the same are found.

Texts are texts, labels are texts, whole numbers or booleans. Anything else is refused. Made into a
text, a list or a chat message would become what Python prints of it, and a long one would be
shortened. Two texts are the same if their normal forms are.
"""

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steering_core.errors import DataError, clipped

#: What to do about a text column, by what it holds instead.
_ADVICE = {
    "a list": "Write it as one text first; chat messages with the model's chat template.",
    "an object": "Write it as one text first.",
    "bytes": "Decode it and store it as text.",
}


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: None, NaN, NA or NaT."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def kind_of(value: Any) -> str:
    """Return what ``value`` is, in the words of the messages."""
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool | np.bool_):
        return "a boolean"
    if isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer()):
        return "a whole number"
    if isinstance(value, Real):
        return "a number"
    if isinstance(value, list | tuple | np.ndarray):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, bytes | bytearray):
        return "bytes"
    return f"a {type(value).__name__}"


def texts_of(column: pd.Series, what: str) -> list[str]:
    """Return the texts of a column, "" where one is missing.

    Args:
        column: as read from a file.
        what: role of the column in the task, for the message.

    Raises:
        DataError: if a value is no text, or a text that UTF-8 cannot write; with its row.
    """
    values = ["" if is_missing(value) else value for value in column.tolist()]
    _require_kinds(values, ["a text"], what, column.name, _ADVICE)
    for row, text in enumerate(values):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{_place(what, row, column.name)} cannot be written: {error}"
            ) from error
    return values


def text_in(row: Mapping[str, Any], column: str) -> str:
    """Return the text in a cell.

    Raises:
        TypeError: if it holds something else.
        UnicodeEncodeError: if UTF-8 cannot write it.
        KeyError: if there is no such column.
    """
    value = row[column]
    if not isinstance(value, str):
        raise TypeError(f"{column} holds {kind_of(value)}, not a text: {clipped(repr(value))}")
    value.encode()  # half of a surrogate pair cannot be written to a file
    return value


def whole_number_in(row: Mapping[str, Any], column: str) -> int:
    """Return the whole number in a cell, which a CSV file writes as a text.

    Raises:
        TypeError: if it holds something else.
        ValueError: if it holds a text that is no whole number.
        KeyError: if there is no such column.
    """
    value = row[column]
    if kind_of(value) not in ("a whole number", "a text"):  # int() takes 2.7 for 2, True for 1
        raise TypeError(
            f"{column} holds {kind_of(value)}, not a whole number: {clipped(repr(value))}"
        )
    return int(value)


def texts_in(values: Any, what: str) -> list[str]:
    """Return a list of texts.

    Raises:
        TypeError: if it is not one.
    """
    if isinstance(values, str):  # as a CSV file has them: its letters would be the texts
        raise TypeError(f"{what} are a text, not a list; a .parquet or .jsonl file has lists")
    if not isinstance(values, list | tuple | np.ndarray):
        raise TypeError(f"{what} are {kind_of(values)}, not a list: {clipped(repr(values))}")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{what} hold {kind_of(value)}, not a text: {clipped(repr(value))}")
    return list(values)


def check_labels(column: pd.Series, what: str, kinds: Collection[str]) -> None:
    """Check the values of a label or group column.

    Args:
        column: as read from a file.
        what: role of the column in the task, for the message.
        kinds: what the values may be, as :func:`kind_of` names it; all must be of one kind.

    Raises:
        DataError: if a value is missing or of another kind; with the first such row.
    """
    values = column.tolist()
    missing = [is_missing(value) for value in values]
    if any(missing):
        raise DataError(
            f"{what}: {sum(missing)} rows have none, the first is row {missing.index(True)} "
            "(counted from 0): fill them in, or remove those rows."
        )
    _require_kinds(values, kinds, what, column.name)
    numbers = {"a whole number", "a number"}
    found = [kind_of(value) for value in values]
    for row, kind in enumerate(found):
        if kind != found[0] and not {kind, found[0]} <= numbers:
            raise DataError(
                f"{_place(what, row, column.name)} holds {kind}, {clipped(repr(values[row]))}, "
                f"and row 0 {found[0]}, {clipped(repr(values[0]))}: write all of them alike."
            )


def _require_kinds(
    values: list[Any],
    kinds: Collection[str],
    what: str,
    name: Any,
    advice: Mapping[str, str] = MappingProxyType({}),
) -> None:
    for row, value in enumerate(values):
        kind = kind_of(value)
        if kind not in kinds:
            raise DataError(
                f"{_place(what, row, name)} holds {kind}, not {' or '.join(kinds)}: "
                f"{clipped(repr(value))}. {advice.get(kind, 'Change it or choose another column.')}"
            )


def _place(what: str, row: int, name: Any) -> str:
    return f"{what}: row {row} (counted from 0) of column {name!r}"


# --------------------------------------------------------------------------- the same text
def normal_form(text: str) -> str:
    """Return the form in which texts are compared.

    It ignores case, the width and composition of characters (Unicode NFKC) and the amount of white
    space.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def normal_forms(texts: Iterable[str]) -> list[str]:
    """Return the normal form of each text."""
    return [normal_form(text) for text in texts]


def joined_groups(group: pd.Series, text: pd.Series) -> pd.Series:
    """Return groups such that no text is in two of them.

    Groups that share a text in its normal form become one, named after the first of them. Blank
    texts are left out later, so they join no groups.

    Args:
        group: name of the group of each row.
        text: text of each row.
    """
    form = pd.Series(normal_forms(text), dtype=object)
    written = (form != "").to_numpy()
    groups, names = pd.factorize(group)
    texts, different = pd.factorize(form[written])
    n, ends = len(names), len(names) + len(different)
    links = coo_array((np.ones(len(texts)), (groups[written], n + texts)), shape=(ends, ends))
    _, part = connected_components(links, directed=False)
    _, first = np.unique(part[:n], return_index=True)
    name_of = dict(zip(part[first], names[first], strict=True))
    return pd.Series([name_of[part[g]] for g in groups], index=group.index)
