"""A file of words that speak for either class, and the words of a text to compare them with."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from steering_core.config.validation import read_validated
from steering_core.errors import ConfigError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class _Lexicon(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: Annotated[list[str], Field(description="a list of words that speak for class 1")]
    negative: Annotated[list[str], Field(description="a list of words that speak for class 0")]


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case: letters and digits, apostrophes inside."""
    return _WORD.findall(text.lower())


def has_word(text: str) -> bool:
    """Return whether ``text`` has a word: a letter or a digit of any script."""
    return _WORD.search(text) is not None


def read_lexicon(path: str | Path) -> tuple[set[str], set[str]]:
    """Return the positive and the negative words of {"positive": [...], "negative": [...]}.

    Raises:
        ConfigError: if the file is missing, has another form, or holds a word that can match none
            of a text.

    """
    words: _Lexicon = read_validated(_Lexicon, path, "classifier.lexicon")
    for word in [*words.positive, *words.negative]:
        if words_of(word) != [word]:
            raise ConfigError(
                f"classifier.lexicon: {path}: {word!r} can match no word of a text: give single "
                "words in lower case, of letters, digits and apostrophes."
            )
    return set(words.positive), set(words.negative)
