"""Models of the hub that judges run: a classifier of texts, and one of pairs of texts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from steering_core.errors import ModelError
from steering_core.generation.batching import Batches
from steering_core.hub.errors import explain_hub_errors
from steering_core.metrics.judges import ClassJudge
from steering_core.models.devices import batch_dependent, choose_device
from steering_core.models.tokens import ROW_STEP, padded_width
from steering_core.progress import counter

#: Texts, or pairs of texts, at a time.
BATCH = 32


class TextClassifier(ClassJudge):
    """A Hugging Face sequence classifier; ``label`` is its name of class 1.

    Raises:
        ModelError: if it cannot be loaded or has no such label.
    """

    def __init__(self, model: str, label: str, revision: str = "main", device: str = "auto"):
        self.tokenizer, loaded = _load(model, revision)
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
        """Return the number of tokens that a text is cut at."""
        longest = getattr(self.model.config, "max_position_embeddings", 512)
        if self.model.config.model_type == "roberta":
            longest -= 2  # positions start after the padding index
        return min(longest, 512)

    def _lengths(self, texts: Sequence[str], limit: int) -> list[int]:
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


class Similarity:
    """A cross-encoder that maps a pair of texts to [0, 1] (sigmoid of its one logit).

    Raises:
        ModelError: if it cannot be loaded or has not exactly one output.
    """

    def __init__(self, model: str, revision: str = "main", device: str = "auto"):
        self.tokenizer, loaded = _load(model, revision)
        if loaded.config.num_labels != 1:
            raise ModelError(f"{model} has {loaded.config.num_labels} outputs; one is needed.")
        self.model = loaded.to(choose_device(device)).eval().requires_grad_(False)

    @torch.no_grad()
    def score(self, left: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the similarity of each pair.

        ``BATCH`` pairs at a time, half as many each time memory runs out.

        Raises:
            ModelError: if a similarity is NaN.
        """
        longest = min(self.model.config.max_position_embeddings, 512)

        def run(chosen: list[int]) -> np.ndarray:
            batch = self.tokenizer(
                [left[i] for i in chosen],
                [right[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=longest,
                split_special_tokens=True,  # a text may name them
                return_tensors="pt",
            ).to(self.model.device)
            return self.model(**batch).logits[:, 0].float().sigmoid().cpu().numpy()

        scores = [found for _, found in Batches(BATCH).each(range(len(left)), run)]
        found = np.concatenate(scores) if scores else np.zeros(0)
        if not np.isfinite(found).all():
            raise ModelError("similarities are NaN: the classifier's weights are damaged.")
        return found


def _load(model: str, revision: str) -> tuple[Any, Any]:
    """Return the tokenizer and the sequence classifier, on the CPU."""
    with explain_hub_errors(model):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        loaded = AutoModelForSequenceClassification.from_pretrained(
            model, revision=revision, use_safetensors=True
        )
    return tokenizer, loaded
