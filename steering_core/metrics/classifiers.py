"""Judges of a completion: a text classifier, or a lexicon where the truth is known."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from steering_core.config.task import Classifier
from steering_core.errors import ConfigError, ModelError
from steering_core.generation.batching import Batches
from steering_core.metrics.lexicon import has_word, read_lexicon, words_of
from steering_core.models.devices import batch_dependent, choose_device
from steering_core.models.hub import explain_hub_errors
from steering_core.models.tokens import ROW_STEP, padded_width
from steering_core.progress import counter

#: Texts at a time.
BATCH = 32


class Judge(ABC):
    """Scores completions, never the prompt. A subclass implements :meth:`_score`."""

    def score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return in [0, 1] how much each text belongs to class 1; above 0.5 it does.

        A text without a word (no letter and no digit) belongs to neither class: its score is NaN.

        Raises:
            ModelError: if another score is NaN.
        """
        scores = np.full(len(texts), np.nan)
        said = [i for i, text in enumerate(texts) if has_word(text)]
        if said:
            scores[said] = self._score([texts[i] for i in said])
        if not np.isfinite(scores[said]).all():
            raise ModelError("the judge's scores are NaN: its weights are damaged, replace them.")
        return scores

    @abstractmethod
    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Score texts that have a word each."""


class TextClassifier(Judge):
    """A Hugging Face sequence classifier; ``label`` is its name of class 1.

    Raises:
        ModelError: if it cannot be loaded or has no such label.
    """

    def __init__(self, model: str, label: str, revision: str = "main", device: str = "auto"):
        with explain_hub_errors(model):
            self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            loaded = AutoModelForSequenceClassification.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        labels = {str(name).lower(): index for index, name in loaded.config.id2label.items()}
        if label.lower() not in labels:
            raise ModelError(f"{model} has no label {label!r}; it has {sorted(labels)}.")
        self.label = int(labels[label.lower()])
        self.independent = (
            loaded.config.problem_type == "multi_label_classification"
            or loaded.config.num_labels == 1  # a softmax over one label is always 1
        )
        self.model = loaded.to(choose_device(device)).eval().requires_grad_(False)

    @torch.no_grad()
    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the probability of the label: sigmoid if labels are independent, else softmax.

        ``BATCH`` texts at a time, half as many each time memory runs out. Texts are padded to the
        next multiple of ``WIDTH_STEP``, and only with others of that width: on a CPU in float32 a
        score does not depend on the texts beside it.
        """
        limit = self._longest()
        widths: dict[int, list[int]] = {}
        for i, length in enumerate(self._lengths(texts, limit)):
            widths.setdefault(padded_width(max(length, 1), limit), []).append(i)
        batches = Batches(BATCH, 1 if batch_dependent(self.model.device) else ROW_STEP)
        scores = np.zeros(len(texts))
        with counter(len(texts), "judging") as tick:
            for width, rows in sorted(widths.items()):
                read = partial(self._score_batch, texts, width)
                for chosen, found in batches.each(rows, read):
                    scores[chosen] = found[: len(chosen)]
                    tick(len(chosen))
        return scores

    def _longest(self) -> int:
        """Return at how many tokens texts are cut."""
        longest = getattr(self.model.config, "max_position_embeddings", 512)
        if self.model.config.model_type == "roberta":
            longest -= 2  # positions start after the padding index
        return min(longest, 512)

    def _lengths(self, texts: Sequence[str], limit: int) -> list[int]:
        if not len(texts):
            return []
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=limit, split_special_tokens=True
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def _score_batch(
        self, texts: Sequence[str], width: int, chosen: list[int]
    ) -> Float[np.ndarray, " n"]:
        batch = self.tokenizer(
            [texts[i] for i in chosen],
            padding="max_length",
            truncation=True,
            max_length=width,
            split_special_tokens=True,  # a text may name them
            return_tensors="pt",
        ).to(self.model.device)
        logits = self.model(**batch).logits.float()
        probability = logits.sigmoid() if self.independent else logits.softmax(dim=-1)
        return probability[:, self.label].cpu().numpy()


class Lexicon(Judge):
    """Counts words of a known lexicon: {"positive": [...], "negative": [...]}.

    Raises:
        ConfigError: if the file is missing or has another form.
    """

    def __init__(self, path: str | Path):
        self.positive, self.negative = read_lexicon(path)

    def _score(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the positive share of the lexicon words of each text; 0.5 without any."""
        scores = []
        for text in texts:
            words = words_of(text)
            positive = sum(word in self.positive for word in words)
            total = positive + sum(word in self.negative for word in words)
            scores.append(positive / total if total else 0.5)
        return np.array(scores)


def load_judge(
    classifier: Classifier, device: str = "auto", pinned: dict[str, Any] | None = None
) -> Judge:
    """Return the judge that the task configures, at the revision that was fetched.

    Raises:
        ConfigError: if the entry names neither a model with its label nor a lexicon.
        ModelError: if it cannot be loaded.
    """
    if classifier.lexicon is not None:
        return Lexicon(classifier.lexicon)
    if classifier.model is None or classifier.label is None:
        raise ConfigError("classifier: give either model and label, or lexicon.")
    revision = pinned["revision"] if pinned else classifier.revision
    return TextClassifier(classifier.model, classifier.label, revision, device)


def in_target_class(scores: Float[np.ndarray, " n"], target_class: int) -> Float[np.ndarray, " n"]:
    """Return 1.0 where the score falls strictly on the target's side of 0.5, else 0.0.

    NaN, the score of a text without a word, is on neither side.
    """
    return ((scores > 0.5) if target_class == 1 else (scores < 0.5)).astype(float)
