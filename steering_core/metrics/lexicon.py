"""A file of words that speak for either class, and the words of a text to compare them with."""

import json
import re
from pathlib import Path

from steering_core.errors import ConfigError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case: letters and digits, apostrophes inside."""
    return _WORD.findall(text.lower())


def read_lexicon(path: str | Path) -> tuple[set[str], set[str]]:
    """Return the positive and the negative words of {"positive": [...], "negative": [...]}.

    Raises:
        ConfigError: if the file is missing, has another form, or holds a word that can match none
            of a text.

    """
    if not Path(path).is_file():
        raise ConfigError(f"classifier.lexicon: there is no file {path}")
    words = json.loads(Path(path).read_text(encoding="utf-8"))
    if set(words) != {"positive", "negative"}:
        raise ConfigError(f"classifier.lexicon: {path} needs the keys positive and negative")
    for word in [*words["positive"], *words["negative"]]:
        if words_of(word) != [word]:
            raise ConfigError(
                f"classifier.lexicon: {path}: {word!r} can match no word of a text: give single "
                "words in lower case, of letters, digits and apostrophes."
            )
    return set(words["positive"]), set(words["negative"])
