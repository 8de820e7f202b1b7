"""What an answer says: the letter of an option, or the number after ``####``.

The first answer counts. A model that goes on makes up the next question, and what it says to that
is no part of the answer.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

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
_LETTER = rf"{_OPEN}{{0,4}}([A-Z]){_ALONE}"
_TAG = r"(?<![^\W_])(?i:answer)[*_\s]*:[*_\s]*"
_TAGGED = re.compile(_TAG + _LETTER)
_DIRECT = re.compile(rf"[*_]*(?:{_TAG})?{_LETTER}")

_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_AFTER_MARK = re.compile(rf"####\s*((?:{_OPEN}|[-+−$€£¥\s])*{_NUMBER})")


def letter(text: str, letters: Sequence[str], *, tagged: bool = False) -> str | None:
    """Return the option that ``text`` names, or None.

    A direct answer begins with the letter: alone, or set off by a bracket, a full stop, a line
    break and the like. With ``tagged`` the model reasons first: the first "Answer: X" counts,
    else a direct answer. Neither is looked for beyond the beginning of another question.
    """
    mine = _answer(text)
    if tagged:
        for name in _TAGGED.findall(mine):
            if name in letters:
                return name
    found = _DIRECT.match(mine)
    return found[1] if found and found[1] in letters else None


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


def _answer(text: str) -> str:
    """Return what precedes the next question; a question in the first line is the one asked."""
    return _NEXT.split(text.strip(), maxsplit=1)[0]
