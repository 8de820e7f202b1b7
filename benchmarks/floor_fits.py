"""Floors of stages without the language model, on random data of the usual shapes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sklearn.linear_model import LogisticRegression
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import alternate, random_model, texts
from benchmarks.floor import Rates, Stage
from steering_core.activations.features import encode_features, read_features
from steering_core.metrics.classifiers import BATCH, TextClassifier
from steering_core.models.sparse_autoencoder import as_dictionary
from steering_core.probes.fit import REGULARISATIONS, fit_probe
from steering_core.probes.layer_sweep import sweep_layer
from steering_core.statistics.correlation import correlate

GROUP_ROWS, FOLDS = 256, 5
#: Active features of a residual.
ACTIVE = 70


@dataclass(frozen=True)
class Residuals:
    """A stand-in for the activation cache, so that encoding is measured without reading a file."""

    rows: np.ndarray

    def batches(self, hook_name: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield ids and residuals in groups."""
        for start in range(0, len(self.rows), GROUP_ROWS):
            part = self.rows[start : start + GROUP_ROWS]
            yield [f"e{start + i}" for i in range(len(part))], part


def random_sae(d_model: int, d_sae: int) -> JumpReLUSAE:
    """Return a JumpReLU SAE with about ``ACTIVE`` active features on a normal residual."""
    metadata = SAEMetadata(hook_name="blocks.0.hook_resid_post", prepend_bos=True)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_model, d_sae=d_sae, metadata=metadata))
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
    cut = torch.special.ndtri(torch.tensor(1 - ACTIVE / d_sae, dtype=torch.float64)).float()
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        sae.threshold.fill_(cut)
    return sae


@contextmanager
def counted_iterations() -> Iterator[list[int]]:
    """Record iterations times rows of every fit inside the block."""
    noted: list[int] = []
    own = LogisticRegression.fit

    def fit(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
        fitted = own(model, x, y)
        noted.append(int(fitted.n_iter_[0]) * len(x))
        return fitted

    with patch.object(LogisticRegression, "fit", fit):
        yield noted


def features(folder: Path, shape: tuple[int, int], n: int, rates: Rates, repeats: int):
    """Measure encoding ``n`` residuals, and correlating their features with a label."""
    d_sae, d_model = shape
    dictionary = as_dictionary(random_sae(d_model, d_sae), "random")
    rng = np.random.default_rng(0)
    cache = Residuals(rng.standard_normal((n, d_model), dtype=np.float32))
    labels = {f"e{i}": float(label) for i, label in enumerate(rng.integers(0, 2, n))}
    file = folder / "features.parquet"

    def encode() -> None:
        encode_features(cache, dictionary, file)

    encode()
    active = sum(block.nnz for _, block in read_features(file))
    encoding, correlating = alternate(
        [encode, lambda: correlate(read_features(file), labels).result()], repeats
    )
    return [
        Stage(f"encode {n} rows, d_sae {d_sae}", encoding, 2.0 * n * d_model * d_sae,
              4.0 * d_model * (d_sae + n), rates),
        # A count, a sum and a sum of squares, each about a mean. 0/1 labels need no further sums.
        Stage(f"correlation, {active / n:.0f} active a row", correlating, 6.0 * active,
              12.0 * active + 2 * 6 * 8 * d_sae, rates),
    ]  # fmt: skip


def probes(shape: tuple[int, int], n: int, rates: Rates, repeats: int) -> list[Stage]:
    """Measure the sweep of one layer, and fitting a probe, in float64."""
    d_sae, d_model = shape
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    h = rng.standard_normal((n, d_model)) + np.outer(labels, 3 * rng.standard_normal(d_model))
    h = h / np.sqrt(d_model)
    decoder = rng.standard_normal((d_sae, d_model), dtype=np.float32)

    def sweep() -> None:
        sweep_layer(h, labels, decoder, layer=0, seed=0, n_folds=FOLDS)

    def probe() -> None:
        fit_probe(h, labels, seed=0, n_folds=FOLDS)

    with counted_iterations() as rows:
        probe()
    fitting = 4.0 * d_model * sum(rows)
    seconds = alternate([sweep, probe], repeats)
    what = f"{n} rows, {len(REGULARISATIONS)} strengths, {FOLDS} folds"
    return [
        Stage(f"sweep of a layer, {what}", seconds[0], fitting + 2.0 * d_sae * d_model,
              8.0 * d_model * n + 4.0 * d_model * d_sae, rates),
        Stage(f"probe, {what}", seconds[1], fitting, 8.0 * d_model * n, rates),
    ]  # fmt: skip


def judge(folder: Path, size: str, rates: Rates, repeats: int) -> Stage:
    """Measure a classifier of DistilBERT's depth on completions."""
    width, n = {"tiny": (64, 4), "full": (768, 256)}.get(size, (256, 64))
    lm = random_model("tiny")  # for its tokenizer
    config = BertConfig(
        vocab_size=1003, hidden_size=width, num_hidden_layers=6, num_attention_heads=width // 64,
        intermediate_size=4 * width, id2label={0: "no", 1: "yes"}, pad_token_id=0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "judge")
    lm.tokenizer.save_pretrained(folder / "judge")
    classifier = TextClassifier(str(folder / "judge"), "yes")
    read = texts(n, 60, 100)
    tokens = sum(len(text.split()) for text in read)
    (spent,) = alternate([lambda: classifier.score(read)], repeats)
    blocks = sum(p.numel() for p in classifier.model.bert.encoder.parameters())
    looking = 4 * config.num_hidden_layers * width * tokens // n
    return Stage(
        f"judge, {n} texts", spent, float(tokens) * (2 * blocks + looking),
        4.0 * blocks * -(-n // BATCH), rates,
    )  # fmt: skip
