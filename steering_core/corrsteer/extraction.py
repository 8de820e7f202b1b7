"""What an answer says: the letter of an option, or the number after ``####``.

The first answer counts. A model that goes on makes up the next question, and what it says to that
is no part of the answer.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache

#: A line that begins another question, after the first line.
_NEXT = re.compile(
    r"\n[ \t#*_]*(?:(?:Q|Question|Request|Problem)(?:[ \t]*\d+)?[*_ \t]*[:.)]"
    r"|Choose one of the following)"
)
#: What may stand before a letter or number: brackets, quotes, emphasis, LaTeX.
_OPEN = r"(?:[(\[{*_\"'`]|\\boxed\{|\\(?:text|textbf|mathrm)\{|\\[(\[]|\$)"
# The letter stands alone: "I believe" is not option I, nor "A.D." or "A, B, or C" option A.
_ALONE = (
    r"(?![)\]}*_\"'`$]*[,;/][ \t]*(?:and |or )?[(\[*\"']{0,2}[A-Z]\b)"
    r"(?=[)\]}*_\"`$\\,;:!]|[.'](?!\w)|[ \t]+[-–—][ \t]|\s*(?:\n|$))"
)
_TAG = r"(?<![^\W_])(?i:answer)[*_\s]*:[*_\s]*"

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_AFTER_MARK = re.compile(rf"####\s*((?:{_OPEN}|[-+−$€£¥\s])*{_NUMBER})")


def letter(text: str, letters: Sequence[str], *, tagged: bool = False) -> str | None:
    """Return the option that ``text`` names, or None.

    A direct answer begins with the letter: alone, or set off by a bracket, a full stop, a line
    break and the like. With ``tagged`` the model reasons first: the first "Answer: X" counts,
    else a direct answer. Neither is looked for beyond the beginning of another question.
    """
    if not len(letters):
        return None
    mine = _answer(text)
    after_tag, direct = _patterns(tuple(letters))
    found = after_tag.search(mine) if tagged else None
    found = found or direct.match(mine)
    return found[1] if found else None


def number(text: str) -> Decimal | None:
    """Return the first number after ``####``, or None: "1,080" is 1080, "72.00" equals 72.

    What follows it is no part of the answer. Currency signs, emphasis, brackets and LaTeX's boxes
    before the number and a full stop after it are no part of it either.
    """
    found = _AFTER_MARK.search(_answer(text))
    if found is None:
        return None
    try:
        return Decimal(re.sub(r"[^\d.\-]", "", found[1].replace("−", "-")))
    except InvalidOperation:
        return None


@lru_cache
def _patterns(letters: tuple[str, ...]) -> tuple[re.Pattern, re.Pattern]:
    """Return what finds a tagged letter anywhere, and what matches a direct one."""
    names = "|".join(map(re.escape, letters))
    one = rf"{_OPEN}{{0,4}}({names}){_ALONE}"
    return re.compile(_TAG + one), re.compile(rf"[*_]*(?:{_TAG})?{one}")


def _answer(text: str) -> str:
    """Return what precedes the next question; a question in the first line is the one asked."""
    return _NEXT.split(text.strip(), maxsplit=1)[0]
