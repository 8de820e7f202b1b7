"""The judges of an experiment, and what they say of every completion, a row per (strength, prompt).

:func:`judge_texts` gives the verdicts on the concept, :func:`rate_completions` the ratings by a
language model behind a server.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from steering_core.config.task import Classifier, Endpoint
from steering_core.errors import ConfigError
from steering_core.methods.solutions import TEXT_KEY
from steering_core.metrics.api_judge import SCALES, ApiJudge, Rater, harmonic_mean
from steering_core.metrics.classifiers import TextClassifier
from steering_core.metrics.judges import ClassJudge, Judge, Lexicon, Vader, is_empty
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.site import Site
from steering_core.probes.linear_probe import LinearProbe

#: Directory where the answers of judges behind a server are kept, for all experiments.
ANSWERS = "results/judge_answers"


def judge_texts(
    generations: pd.DataFrame,
    judge: Judge,
    target_class: int,
    further: Mapping[str, Judge] | None = None,
) -> pd.DataFrame:
    """Return ``score``, ``judged`` and ``empty`` of every completion; prompts are not judged.

    Each judge of ``further`` adds the columns ``score_{name}`` and ``judged_{name}``.

    ``judged`` is 1 for a completion in the target class, else 0. A completion without a word is
    ``empty`` (1, else 0): it has no score and counts as not in the target class. One that the judge
    refuses to rate has neither a score nor a verdict. A row without a completion has NaN in all
    three.
    """
    frame = generations[[*TEXT_KEY]].assign(score=np.nan, judged=np.nan, empty=np.nan)
    made = generations["text"].notna().to_numpy()
    texts = generations.loc[made, "text"].tolist()
    empty = is_empty(texts)
    frame.loc[made, "empty"] = empty.astype(float)
    for name, one in {"": judge, **(further or {})}.items():
        verdict = one.judge(texts, [target_class] * len(texts))
        score = np.asarray(verdict.score, dtype=float)
        judged = np.where(np.isnan(score) & ~empty, np.nan, verdict.success.astype(float))
        for column, values in (("score", score), ("judged", judged)):
            column = f"{column}_{name}" if name else column
            frame[column] = np.nan
            frame.loc[made, column] = values
    return frame


def load_judge(
    classifier: Classifier,
    device: str = "auto",
    pinned: dict[str, Any] | None = None,
    answers: str | Path = ANSWERS,
) -> ClassJudge:
    """Return the judge that the task configures.

    Args:
        classifier: that section of the task.
        device: where a model runs.
        pinned: the ``revision`` that was fetched; None for the configured one.
        answers: directory where the answers of a judge behind a server are kept.

    Raises:
        ConfigError: if the entry names neither a model with its label nor a lexicon.
        ModelError: if it cannot be loaded.
    """
    if classifier.lexicon is not None:
        return Lexicon(classifier.lexicon)
    if classifier.builtin == "vader":
        return Vader()
    if classifier.api is not None:
        return ApiJudge(classifier.api, answers)
    if classifier.model is None or classifier.label is None:
        raise ConfigError("classifier: give one of model and label, lexicon, builtin, api.")
    revision = pinned["revision"] if pinned else classifier.revision
    return TextClassifier(classifier.model, classifier.label, revision, device)


class EvaluationProbeJudge(ClassJudge):
    """Judges a completion by the evaluation probe at its last token, read by the base model.

    For concepts without a text classifier. The probe reads the representation that is steered, so
    it is weaker evidence than a classifier; the results warn of that. A completion is cut only
    where it exceeds the model's context. With ``chat_template`` it is read as the user's turn, as
    the texts were that the probe was fitted on.
    """

    def __init__(
        self,
        lm: LanguageModel,
        site: Site,
        probe: LinearProbe,
        *,
        batch_tokens: int,
        chat_template: bool = False,
    ):
        self.lm, self.site, self.probe = lm, site, probe
        self.batch_tokens, self.chat_template = batch_tokens, chat_template

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the probability of class 1."""
        residuals = last_token_residuals(
            self.lm,
            list(texts),
            self.site,
            max_tokens=self.lm.shape.context,
            batch_tokens=self.batch_tokens,
            chat_template=self.chat_template,
        )
        logits = torch.from_numpy(self.probe.decision(residuals))
        return torch.sigmoid(logits).numpy()


# ----------------------------------------------------------------- ratings on the scales of AxBench
#: Columns joined to the ratings of a text: its strength, and what is added at it.
_ABOUT = ["method", "strength_index", "example_id", "split", "tau", "residual_norm"]


def rating_endpoint(judges: Sequence[Classifier]) -> Endpoint:
    """Return the first judge of a task that is behind a server.

    Raises:
        ConfigError: if there is none.
    """
    for judge in judges:
        if judge.api is not None:
            return judge.api
    raise ConfigError("no judge of the task is a language model behind a server: add {api: …}.")


def rate_completions(
    generations: pd.DataFrame,
    solutions: pd.DataFrame,
    endpoint: Endpoint,
    cache: str | Path,
    *,
    target_class: Literal[0, 1],
) -> pd.DataFrame:
    """Return a row per text with its ratings; NaN where there is no text or no rating.

    A text without a word is not sent to the judge: it scores 0 on every scale. Were it left out, a
    strength that leaves most prompts without a word would be rated by the few others.

    Args:
        generations: rows of all methods: the key of a text, ``strength_name``, ``strength``,
            ``prompt`` and ``text``.
        solutions: rows of all methods: ``split``, ``tau`` and ``residual_norm`` of each input.
        endpoint: the server.
        cache: directory of its answers.
        target_class: that is steered to. Away from the concept, the rating of the concept counts
            from the other end: 2 for a text without it.

    Raises:
        ConfigError, ModelError: as :class:`steering_core.metrics.api_judge.Rater`.
    """
    table = generations[[*TEXT_KEY, "strength_name", "strength"]].merge(
        solutions[_ABOUT], on=_ABOUT[:3], how="left", validate="many_to_one"
    )
    made = generations["text"].notna().to_numpy()
    rated = Rater(endpoint, cache).rate(
        generations.loc[made, "text"].tolist(),
        SCALES,
        instructions=generations.loc[made, "prompt"].tolist(),
    )
    wide = rated.pivot(index="text", columns="scale", values="rating")
    for scale in SCALES:
        values = np.full(len(table), np.nan)
        if made.any():
            values[made] = wide[scale].to_numpy(dtype=float, na_value=np.nan)
        table[scale] = values
    if target_class == 0:
        table["concept"] = 2 - table["concept"]
    silent = np.zeros(len(table), dtype=bool)
    silent[made] = is_empty(generations.loc[made, "text"])
    table.loc[silent, list(SCALES)] = 0.0
    ratings = table[[*SCALES]].to_numpy()
    table["harmonic"] = [
        harmonic_mean([None if np.isnan(rating) else rating for rating in row]) for row in ratings
    ]
    return table.assign(made=made)
