"""A tiny SAE per layer, a tiny task, and rows for it: what the CorrSteer tests run on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steering_core.corrsteer.answers import Session
from steering_core.corrsteer.tasks import Source, Task
from steering_core.corrsteer.training_data import TrainingData
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.metrics.judges import Judge, Verdict
from steering_core.models.site import Site

SITE = Site(layer=1, stream="post", centred=False, prepend_bos=True)
#: The feature along which successes and failures of :func:`training_data_of_one_cause` lie.
CAUSE = 3


def training_data_of_one_cause() -> TrainingData:
    """Successes and failures that lie along one decoder row, without a model."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    success = rng.random(150) < 0.5
    noise = rng.standard_normal((150, 12))
    shift = rng.standard_normal((40, 12))
    correlation = np.full(30, 0.01)
    correlation[CAUSE] = 0.9
    return TrainingData(
        SITE,
        noise + np.where(success, 1.0, -1.0)[:, None] * rows[CAUSE],
        success,
        rows,
        correlation,
        lambda: (shift + rows[CAUSE], shift - rows[CAUSE]),
        lambda: (shift + rows[CAUSE], shift - rows[CAUSE]),
        noise[:20],
        seed=0,
        device=torch.device("cpu"),
    )


class TinySAE:
    """Rectified random features with unit decoder rows; stands in for a FeatureDictionary."""

    def __init__(self, d_model: int, d_sae: int, seed: int = 0):
        rows = np.random.default_rng(seed).standard_normal((d_sae, d_model))
        self.decoder = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.d_sae = d_sae
        self.rows = torch.tensor(self.decoder)

    def encode(self, residual: torch.Tensor) -> torch.Tensor:
        return torch.relu(residual @ self.rows.T - 0.5)


@dataclass(frozen=True)
class EvenLength(Judge):
    """Succeeds where the number of generated words is even: arbitrary, but a function of them."""

    def _judge(self, texts, golds, letters, classifier=None, *, reasoned=False) -> Verdict:
        counts = [sum(int(w[1:]) for w in text.split() if w[1:].isdigit()) for text in texts]
        return Verdict([str(n) for n in counts], np.array([n % 2 == 0 for n in counts]))


def spacing_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny model's words, with tokens for a space and a line break."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(58)), " ", "\n"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


def session_of(lm, how, task=None, classifier=None, sites=None) -> Session:
    """Return a session on the task of words, or another."""
    return Session(lm, task or words_task(), how, classifier, False, sites or {1: SITE})


def at_layers(vectors, sites, layers) -> Intervention:
    """Return the intervention of a vector at each of some layers."""
    return Intervention({sites[layer]: RowVectors(vectors[layer]) for layer in layers})


def words_task(new_tokens: int = 4) -> Task:
    return Task("words", Source("nowhere", "train"), lambda row: None, EvenLength(), new_tokens)


def word_rows(n: int, seed: int = 0, split: str = "train") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    prompts = [
        " ".join(f"w{i}" for i in rng.integers(0, 60, int(rng.integers(2, 9)))) for _ in range(n)
    ]
    return pd.DataFrame(
        {
            "example_id": [f"{split}:{i}" for i in range(n)],
            "split": split,
            "prompt": prompts,
            "gold": "even",
            "worked": "w0",
            "letters": [[] for _ in range(n)],
        }
    )
