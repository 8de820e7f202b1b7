"""A task, as configured: a labelled dataset, the concept's texts and the judge of completions."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, model_validator

from steering_core.config.model import Closed


class Endpoint(Closed):
    """A server that speaks OpenAI's chat completions, and how it is asked for ratings.

    OpenAI, vLLM, llama.cpp's server and ``transformers serve`` speak it.

    Attributes:
        url: the base address, with ``/v1`` if the server has one. It stands in tables and errors,
            so it may hold no password and no key.
        model: the model's name on the server.
        concept: what the judge looks for, in words; class 1 shows it.
        key: the environment variable with the server's key. Without a value no key is sent.
        max_tokens: of an answer.
        at_once: calls at a time.
        attempts: the most answers to one question before it counts as refused; and the most times
            that one call is made to a server that is busy or silent.
        timeout_s: seconds to wait for an answer.
        price_in: of a million tokens read, to estimate the cost.
        price_out: of a million tokens written.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # a wrong value may be a key

    url: str
    model: Annotated[str, Field(min_length=1)]
    concept: str | None = None
    key: str = "OPENAI_API_KEY"
    max_tokens: Annotated[int, Field(ge=8)] = 256
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    attempts: Annotated[int, Field(ge=1, le=10)] = 4
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    price_in: Annotated[float, Field(ge=0)] | None = None
    price_out: Annotated[float, Field(ge=0)] | None = None

    # The checks below are of the whole section, so that no message quotes a value: it may be a key.
    @model_validator(mode="after")
    def _url_is_an_address_alone(self) -> "Endpoint":
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # no port, or brackets that do not close
            known = False
        if not known or re.search(r"\s", self.url):
            raise ValueError("url: give an address such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment or "?" in self.url:
            raise ValueError(
                "url: give the address alone, without a user, a password or a query: a key belongs "
                "in the environment variable that `key` names"
            )
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("url: give the base address, without /chat/completions")
        return self

    @model_validator(mode="after")
    def _key_names_a_variable(self) -> "Endpoint":
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key):
            raise ValueError(
                "key: give the name of the environment variable that holds the key, in capitals, "
                "such as OPENAI_API_KEY, not the key itself"
            )
        return self


class Classifier(Closed):
    """A judge of completions.

    It is a text classifier with its label of class 1, a lexicon file, the word list of VADER
    (sentiment; Hutto and Gilbert 2014), or a language model behind a server.
    """

    model: str | None = None
    revision: str = "main"
    label: str | None = None
    lexicon: str | None = None
    builtin: Literal["vader"] | None = None
    api: Endpoint | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Classifier":
        kinds = [self.model, self.lexicon, self.builtin, self.api]
        one = sum(kind is not None for kind in kinds) == 1
        if not one or (self.model is None) != (self.label is None):
            raise ValueError(
                "give one of: model and label (the label of class 1), lexicon, builtin: vader, api"
            )
        if self.api is not None and self.api.concept is None:
            raise ValueError("api.concept: say in words what a text of class 1 shows")
        return self

    @property
    def name(self) -> str:
        """Name of the judge in tables: of the classifier or of its kind."""
        if self.model is not None:
            return re.sub(r"[^a-z0-9]+", "_", self.model.rsplit("/", 1)[-1].lower()).strip("_")
        return self.builtin or ("api" if self.lexicon is None else "lexicon")


class Task(Closed):
    """A labelled dataset, the concept's texts and the judge of completions.

    The columns take one of two forms:

    - ``text`` and ``label`` name two columns. Class 1 is label 1, or the label ``positive_label``,
      or every score above ``threshold``.
    - ``question``, ``positive`` and ``negative`` name the columns of question-answer pairs. The
      question with the positive answer is class 1, with the negative answer class 0. The rows of
      one question form one group.

    Tasks with one ``concept_set`` are the concepts of one table, ``axbench_{concept_set}.csv``.
    """

    dataset: str
    revision: str = "main"
    subset: str | None = None
    split: str = "train"
    text: str | None = None
    label: str | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    positive_label: str | int | float | None = None
    group: str | None = None
    question: str | None = None
    positive: str | None = None
    negative: str | None = None
    concept: str
    concept_set: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")] | None = None
    target_class: Literal[0, 1] = 1
    classifier: Classifier | None = None
    further_judges: list[Classifier] = []
    settings: dict = {}

    @model_validator(mode="before")
    @classmethod
    def _first_is_headline(cls, given: Any) -> Any:
        """Take a list of judges apart: the first is the headline."""
        if isinstance(given, dict) and isinstance(given.get("classifier"), list):
            if not given["classifier"] or given.get("further_judges"):
                raise ValueError("classifier: give a judge, or a list of at least one")
            first, *others = given["classifier"]
            return {**given, "classifier": first, "further_judges": others}
        return given

    @property
    def judges(self) -> list[Classifier]:
        """All judges of completions, the headline first. Empty if the evaluation probe judges."""
        return [*([] if self.classifier is None else [self.classifier]), *self.further_judges]

    @property
    def judge_names(self) -> list[str]:
        """Names of the judges in every table, the headline first."""
        return [judge.name for judge in self.judges] or ["evaluation_probe"]

    @model_validator(mode="after")
    def _judges_differ(self) -> "Task":
        names = [judge.name for judge in self.judges]
        if self.further_judges and self.classifier is None:
            raise ValueError("further_judges: name the headline judge in classifier")
        if len(set(names)) < len(names):
            raise ValueError(f"classifier: two judges have one name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> "Task":
        pair = (self.question, self.positive, self.negative)
        flat = (self.text, self.label)
        if not ((all(pair) and not any(flat)) or (all(flat) and not any(pair))):
            raise ValueError("give either text and label, or question, positive and negative")
        cut = (self.threshold, self.positive_label)
        if any(pair) and (self.group or cut != (None, None)):
            raise ValueError("group, threshold and positive_label belong to text and label")
        if None not in cut:
            raise ValueError("give threshold, for a score, or positive_label, for a class")
        return self
