"""Semantic similarity of two texts by a cross-encoder with one output."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from steering_core.errors import ModelError
from steering_core.generation.batching import Batches
from steering_core.models.devices import choose_device
from steering_core.models.hub import explain_hub_errors

#: Pairs at a time.
BATCH = 32


class Similarity:
    """A cross-encoder that maps a pair of texts to [0, 1] (sigmoid of its one logit).

    Raises:
        ModelError: if it cannot be loaded or has not exactly one output.
    """

    def __init__(self, model: str, revision: str = "main", device: str = "auto"):
        with explain_hub_errors(model):
            self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            loaded = AutoModelForSequenceClassification.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        if loaded.config.num_labels != 1:
            raise ModelError(f"{model} has {loaded.config.num_labels} outputs; one is needed.")
        self.model = loaded.to(choose_device(device)).eval().requires_grad_(False)

    @torch.no_grad()
    def score(self, left: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Return the similarity of each pair.

        ``BATCH`` pairs at a time, half as many each time memory runs out.
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
