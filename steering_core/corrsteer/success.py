"""Success functions: how the answer is read from a completion, and the judges of a task's answers.

:func:`letter` and :func:`number` read the letter of an option, or the number after ``####``. The
first answer counts. A model that goes on invents the next question; what follows that question is
ignored. The forms are those of lm-evaluation-harness (``Answer: X`` and ``answer is (X)`` of
MMLU-Pro, the number after ``####`` of GSM8K), with the marks that tuned models put around them.
``docs/corrsteer.md`` lists the accepted forms, and a test reads that list. What a refusal is, is in
:mod:`steering_core.metrics.refusal`.

Each judge is a small frozen object that names the classifier it needs, so a task is a declaration.
A classifier that cannot be loaded is an error; no success function falls back to another.
Classifiers are imported only when they are loaded, since each start of the workflow reads the
tasks.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, DivisionByZero, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from steering_core.demo.vocabulary import lexicon, score_sentiment
from steering_core.metrics.judges import Judge, Verdict, same_answers

if TYPE_CHECKING:
    from steering_core.metrics.classifiers import Similarity


# ------------------------------------------------------------------------- the next question
#: A line that begins another question. "Q3:" and "Problem:" are not sure signs: the first may be a
#: quarter of a year, the second the same problem restated.
_NEXT = re.compile(
    r"\n[ \t#*_]*(?:"
    r"(?:Q|Question|Request)[*_ \t]*[:.)]"
    r"|Choose one of the following"
    r"|(?P<unsure>(?:(?:Q|Question|Request)[ \t]*\d+|Problem(?:[ \t]*\d+)?)[*_ \t]*[:.)])"
    r")"
)
_ASKS = re.compile(r"[*_ \t]*\n?[^\n]*\?[)\]\"'”’*_ \t]*(?:\n|$)")
_AMOUNT = re.compile(r"[*_ \t]*[-+−$€£¥₹\\]*\d")
_IS_ANSWERED = re.compile(r"(?:(?!\n[ \t]*\n)[\s\S])*?\n[ \t*_]*(?:A|Answer)[*_ \t]*[:.)]")
_BLANK_LINE_BEFORE = re.compile(r"\n[ \t]*$")

# --------------------------------------------------------------------------------- letters
#: Marks before a letter or number: brackets, quotes, emphasis, LaTeX.
_OPEN = r"(?:[(\[{*_\"'`“‘]|\\boxed\{|\\(?:text|textbf|mathrm|mathbf)\{|\\[(\[]|\$)"
_CLOSE = r"[)\]}*_\"'`$”’\\]"
_OPTION = r"(?:(?i:option|choice)[ \t]+)?"
# The letter stands alone: "I believe" is not option I, nor "A cat" or "A.D." option A.
_ALONE = (
    r"(?=[)\]}*_\"`”$\\,;:!]|[.'’](?!\w)|[ \t]+[-–—][ \t]|[ \t]+\(|\s*(?:\n|$)"
    r"|[ \t]+(?:because|since|as)\b|[ \t]+is (?:the )?(?:correct|right|best)\b)"
)
_TAG = r"(?<![^\W_])(?i:answer)[*_\s]*[:：][*_\s]*"
_SUPPOSED = r"(?i:\b(?:if|whether|unless|suppose|assume|assuming)[ \t]+)"
_SENTENCE = (
    r"(?i:(?:(?:the|my)[ \t]+)?(?:(?:(?:final|correct|best|right)[ \t]+)?(?<!wrong )"
    r"(?<!incorrect )(?<!possible )\banswer|(?:correct|best|right)[ \t]+(?:option|choice))"
    r"[*_ \t]+(?:is|would be|must be|should be)\b)[ \t]*:?\s*"
)
_SO = r"(?i:(?:so|thus|therefore|hence),?[ \t]+)?"

# --------------------------------------------------------------------------------- numbers
_MARK = re.compile(r"#{4,}")
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_SIGNS_OF_MONEY = "".join(
    re.escape(sign) for sign in map(chr, range(0x10000)) if unicodedata.category(sign) == "Sc"
)
_MONEY = (
    rf"(?:(?:US|CA|C|AU|A|NZ|HK|S|R)?\\?[{_SIGNS_OF_MONEY}]"
    r"|(?:USD|EUR|GBP|INR|JPY|CNY|RMB|CAD|AUD|NZD|CHF|HKD|SGD|MXN|BRL|ZAR|KRW|PKR|NGN|PHP)(?![A-Za-z])"
    r"|(?i:Rs)\b\.?)"
)
#: Marks between digits that group them in threes.
_GROUPING = r"(?:,|\{,\}|\\[,;: !])"
_SPACE = "[ \u00a0\u2009\u202f]"
# "1,00,000" is grouped as in India; "5,6" and "1.080,50" are not single numbers.
_INTEGER = (
    rf"(?:\d{{1,3}}(?:{_GROUPING}\d{{3}})+|\d{{1,3}}(?:{_SPACE}\d{{3}})+(?![\w-])"
    r"|\d{1,2}(?:,\d{2})+,\d{3}|\d+)(?!\d)"
)
_DIGITS = rf"(?:{_INTEGER}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,3}}(?!\w))?"
_END = r"(?![,./:]?\d|[eE]\d)"
_NUMBER = re.compile(
    rf"(?P<before>(?:{_OPEN}|[-+−–\s]|{_MONEY})*)"
    rf"(?:(?:(?P<whole>\d+)[ \t]+)?(?P<over>\d+)[ \t]*/[ \t]*(?:{_MONEY})?(?P<under>\d+)(?!/)"
    rf"|(?:(?P<whole_>\d+)[ \t]*)?\\[dt]?frac\{{(?P<over_>\d+)\}}\{{(?P<under_>\d+)\}}"
    rf"|(?P<number>{_DIGITS})){_END}"
)
#: Before the number, or before an equation: "Answer: 72", "the final answer is 72".
_SAYING = re.compile(
    r"(?i:[*_\s]*(?:(?:the|my)\s+)?(?:(?:final|correct|numerical|total)\s+)*answer"
    r"[*_\s]*(?:[:：]|is\b)[*_\s]*:?)|[*_]*[:：]"
)
#: The left side of an equation may be a name ("x = 5", "Total cost = 5"), but not "Step 1: 5".
_NAME = re.compile(r"\s*[^\W\d][^\d:;]{0,40}")
#: The end of the statement after ``####`` and the beginning of a remark.
_REMARK = re.compile(r"\n|(?<!\\);|(?<![Rr][Ss])[,.]\s|(?<=[\w})\]%])[ \t]+[(\[]")


def letter(text: str, letters: Sequence[str], *, tagged: bool = False) -> str | None:
    """Return the option that ``text`` names, or None.

    A direct answer begins with the letter, or with "Answer:" or "The answer is" and the letter. The
    letter stands alone: it is followed by a bracket, a full stop, a line break or the like. An
    answer that names two options ("(B) or (C)") gives none.

    With ``tagged`` the model reasons first: the first "Answer: X" anywhere counts, else the first
    "the answer is X", else a direct answer. The text after the next question is ignored.
    """
    if not len(letters):
        return None
    mine = _answer(text)
    after_tag, in_sentence, direct = _patterns(tuple(letters))
    if tagged:
        found = after_tag.search(mine)
        if found is None:
            stated = (m for m in in_sentence.finditer(mine) if m["supposed"] is None)
            found = next(stated, None)
        if found is not None:
            return found["letter"]
    found = direct.match(mine)
    return found["letter"] if found else None


def number(text: str) -> Decimal | None:
    """Return the number after ``####``, or None: "1,080" is 1080, "72.00" equals 72, "1/2" is 0.5.

    The number is in the first line after the mark that is not empty. In an equation it is the last
    number right after an equals sign, else the first number. Currency, emphasis, brackets and
    LaTeX boxes around it are dropped, and so is the text after it. Digits that are not a single
    number ("5,6", "10:30") are no answer. If no number follows a mark, the next mark counts.
    """
    after = _MARK.split(_answer(text))[1:]
    return next((found for found in map(_number_at_the_front, after) if found is not None), None)


def _number_at_the_front(text: str) -> Decimal | None:
    text = _CALCULATOR.sub("", text)
    saying = _SAYING.match(text)
    rest = text[saying.end() :] if saying else text
    opened = re.match(rf"(?:{_OPEN}|\s)*", rest)
    start = opened.end() if opened else 0
    remark = _REMARK.search(rest, start)
    statement = rest[: remark.start()] if remark else rest
    first, *sides = statement.split("=")
    if not (_NUMBER.match(first) or _NAME.fullmatch(first)):
        return None
    for side in [*reversed(sides), first]:
        found = _NUMBER.match(side)
        if found is not None:
            return _value(found)
    return None


def _value(found: re.Match) -> Decimal | None:
    """Return the value of a match of ``_NUMBER``; None with two signs or a zero denominator."""
    signs = re.sub(r"[−–]", "-", re.sub(r"[^-+−–]", "", found["before"]))
    if len(signs) > 1:
        return None
    try:
        if found["number"] is not None:
            size = Decimal(re.sub(r"[^\d.eE+\-]", "", found["number"]))
        else:
            whole, over, under = (
                found[name] or found[f"{name}_"] for name in ("whole", "over", "under")
            )
            size = Decimal(whole or 0) + Decimal(over) / Decimal(under)
    except (InvalidOperation, DivisionByZero):
        return None
    return -size if signs == "-" else size


@lru_cache
def _patterns(letters: tuple[str, ...]) -> tuple[re.Pattern, re.Pattern, re.Pattern]:
    """Return the patterns of a letter after a tag, in a sentence, and of a direct answer."""
    names = "|".join(map(re.escape, letters))
    # Another option beside it: ", B", "/B", " or B", "(A) (B)". "B, I think" names no I.
    other = rf"{_OPTION}{_OPEN}{{0,3}}(?:{names})(?![\w'’]|[ \t]+(?!or\b|and\b)[a-z])"
    beside = (
        rf"(?!{_CLOSE}*(?:[ \t]*[,;/&+][ \t]*(?:(?:and|or)[ \t]+)?|[ \t]+(?:and|or)[ \t]+){other}"
        rf"|[)\]][ \t]*[(\[](?:{names})[)\]])"
    )
    one = rf"{_OPTION}{_OPEN}{{0,8}}{_OPTION}{_OPEN}{{0,2}}(?P<letter>{names}){beside}{_ALONE}"
    return (
        re.compile(rf"{_TAG}(?:{_SENTENCE})?{one}"),
        re.compile(rf"(?P<supposed>{_SUPPOSED})?{_SENTENCE}{one}"),
        re.compile(rf"[*_]*(?:{_TAG})?{_SO}(?:{_SENTENCE})?{one}"),
    )


def _answer(text: str) -> str:
    """Return the text before the next question; one in the first line is the prompt's, repeated."""
    text = text.strip().replace("\r\n", "\n")
    for found in _NEXT.finditer(text):
        if found["unsure"] is None or _is_a_question(text, found):
            return text[: found.start()]
    return text


def _is_a_question(text: str, mark: re.Match) -> bool:
    """Return True if a numbered mark or "Problem:" begins a question.

    It does if the line ends in a question mark. It also does if it follows an empty line, is not an
    amount, and has an answer in one of the lines below it.
    """
    if _ASKS.match(text, mark.end()):
        return True
    return bool(
        _BLANK_LINE_BEFORE.search(text, 0, mark.start())
        and not _AMOUNT.match(text, mark.end())
        and _IS_ANSWERED.match(text, mark.end())
    )


# ------------------------------------------------------------------------------------------ judges
@dataclass(frozen=True)
class ExactOption(Judge):
    """The letter equals the gold's."""

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Extract the letter and compare."""
        answers = [
            letter(text, options, tagged=reasoned)
            for text, options in zip(texts, letters, strict=True)
        ]
        return Verdict(answers, same_answers(answers, golds))


@dataclass(frozen=True)
class NumberAfterMark(Judge):
    """The number after ``####`` equals the gold's, as a number."""

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Extract the numbers of both sides and compare them."""
        found = [number(text) for text in texts]
        wanted = [number(gold) for gold in golds]
        success = [a is not None and a == b for a, b in zip(found, wanted, strict=True)]
        return Verdict([None if a is None else str(a) for a in found], np.array(success, bool))


@dataclass(frozen=True)
class SemanticSimilarity(Judge):
    """A cross-encoder finds the answer similar enough to the gold."""

    classifier: str = "dleemiller/ModernCE-base-sts"
    threshold: float = 0.6

    def load(self, revision: str | None = None, device: str = "auto") -> "Similarity":
        """Load the cross-encoder."""
        from steering_core.metrics.classifiers import Similarity

        return Similarity(self.classifier, revision or "main", device)

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Score (answer, gold), in this order."""
        answers = [text.strip() for text in texts]
        scores = self.needed(classifier).score(answers, list(golds))
        return Verdict(answers, np.asarray(scores >= self.threshold, dtype=bool), scores)


#: The answer that :class:`Praise` reads, by the sign of the sentiment.
_SENTIMENTS = {1: "positive", 0: "mixed or none", -1: "negative"}


@dataclass(frozen=True)
class Praise(Judge):
    """The lexicon finds more positive than negative words in the answer."""

    def _judge(
        self,
        texts: Sequence[str],
        golds: Sequence[str],
        letters: Sequence[Sequence[str]],
        classifier: Any = None,
        *,
        reasoned: bool = False,
    ) -> Verdict:
        """Score the completions with the grammar's own lexicon."""
        scores = score_sentiment(texts, lexicon())
        return Verdict([_SENTIMENTS[score] for score in scores.tolist()], np.asarray(scores > 0))
