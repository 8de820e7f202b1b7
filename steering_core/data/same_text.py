"""Normal forms of texts: equal if two texts count as the same; and groups that share a text."""

import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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
