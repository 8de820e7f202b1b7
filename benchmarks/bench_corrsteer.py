"""Cost of selection: throughput against plain generation, and memory of the accumulators.

``python -m benchmarks.bench_corrsteer [--tiny | --quick]`` prints a table, writes
``results/benchmarks/corrsteer.csv`` and fails if a required ratio is missed. The model is random.
It has a JumpReLU SAE at every layer but the first, with the published ratio of features to
dimensions, and ends its answers at different lengths. The contestants answer the same prompts in
the same batches, in turn. Selection accumulates the statistics of the default arms.
"""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.common import alternate
from benchmarks.options import chosen_size
from benchmarks.table import Line, at_least, at_most, report
from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.answers import Decoding, Session
from steering_core.corrsteer.scores import PooledStatistic, statistics_of
from steering_core.corrsteer.selection import make_readers, select
from steering_core.corrsteer.tasks import Source, Task
from steering_core.demo.language_model import word_tokenizer
from steering_core.metrics.judges import Judge, Verdict
from steering_core.models.language_model import LanguageModel, model_shape
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import FeatureEncoder, as_dictionary, encoder_of

REQUIRED_THROUGHPUT = 0.85
ALLOWED_GROWTH = 1.01
#: Eight features per dimension; Gemma Scope 16k has 7.1, Llama Scope 8x has 8.
D_MODEL, N_LAYERS, EXPANSION, ACTIVE = 256, 8, 8, 70
PROMPT_TOKENS = 100
ENDS = 30  # one of this many words ends an answer


@dataclass(frozen=True)
class Longer(Judge):
    """A cheap judge of the answer."""

    def _judge(self, texts, golds, letters, classifier=None, *, reasoned=False) -> Verdict:
        """Count an answer as a success if its first word is even."""
        return Verdict(list(texts), np.array([len(text) % 2 == 0 for text in texts]))


def random_encoder(lm: LanguageModel, layer: int, prompts: list[str]) -> FeatureEncoder:
    """Return a JumpReLU encoder with about ``ACTIVE`` active features per residual."""
    d_model, generator = lm.shape.d_model, torch.Generator().manual_seed(layer)
    d_sae = EXPANSION * d_model
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post", prepend_bos=True)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d_model, d_sae=d_sae, metadata=metadata))
    site = Site(layer, "post", False, True)
    seen = last_token_residuals(lm, prompts, site, max_tokens=256, batch_tokens=2048)
    with torch.no_grad():
        rows = torch.randn(d_sae, d_model, generator=generator)
        sae.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_dec.copy_(torch.from_numpy(seen.mean(axis=0)))
        sae.b_enc.copy_(0.01 * torch.randn(d_sae, generator=generator))
        inputs = torch.from_numpy(seen).float() - sae.b_dec * sae.cfg.apply_b_dec_to_input
        before = inputs @ sae.W_enc + sae.b_enc
        sae.threshold.fill_(before.flatten().sort(descending=True)[0][ACTIVE * len(before)])
    return encoder_of(as_dictionary(sae, f"random, layer {layer}"))


def shape_of(size: str) -> tuple[int, int]:
    """Return the number of layers of the model, and its width."""
    return (2, 32) if size == "tiny" else (N_LAYERS, D_MODEL)


def build(size: str) -> tuple[LanguageModel, dict[int, FeatureEncoder], dict[int, Site]]:
    """Return a random model, an encoder for each layer and their sites."""
    n_layers, d_model = shape_of(size)
    tokenizer = word_tokenizer([f"w{i}" for i in range(4000)], context_size=256)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=4 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    # Several words end an answer, so that the rows of a batch end at different lengths.
    model.generation_config.eos_token_id = list(range(50, len(tokenizer), ENDS))
    lm = LanguageModel(model, tokenizer, model_shape(config, "random"))
    prompts = questions(32)["prompt"].tolist()
    saes = {layer: random_encoder(lm, layer, prompts) for layer in range(1, n_layers)}
    return lm, saes, {layer: sae.site for layer, sae in saes.items()}


def questions(n: int) -> pd.DataFrame:
    """Return ``n`` prompts of about ``PROMPT_TOKENS`` words."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(PROMPT_TOKENS - 20, PROMPT_TOKENS + 20, n)
    prompts = [" ".join(f"w{i}" for i in rng.integers(0, 4000, size)) for size in lengths]
    return pd.DataFrame(
        {
            "example_id": [str(i) for i in range(n)],
            "prompt": prompts,
            "gold": "",
            "letters": [[] for _ in range(n)],
        }
    )


def throughput(size: str, name: str, new_tokens: int, n_rows: int, repeats: int) -> list[Line]:
    """Return throughput of selection / plain generation, for all arms and for Pearson alone."""
    lm, saes, sites = build(size)
    rows, how = questions(n_rows), Decoding(new_tokens, batch_rows=8)
    task = Task("bench", Source("-", "-"), lambda row: None, Longer(), new_tokens)

    session = Session(lm, task, how, None, reasoned=False, sites=sites)

    def plain() -> list[int]:
        return [len(text.split()) for _, texts in session.complete(rows) for text in texts]

    def selecting(
        wanted: list[PooledStatistic], histograms: list[PooledStatistic]
    ) -> Callable[[], object]:
        readers = make_readers(saes, sites, wanted, lm.shape.d_model)
        return lambda: select(session, rows, readers, wanted, histograms=histograms)

    default, histograms = (
        [PooledStatistic.parse(text) for text in texts]
        for texts in statistics_of(CorrSteerSettings().arms, "max")
    )
    reference, everything, pearson = alternate(
        [plain, selecting(default, histograms), selecting([PooledStatistic()], [])], repeats
    )
    words = plain()
    length = f"{min(words)} to {max(words)} tokens of answer"
    note = f"{n_rows} prompts, {length}; best of {repeats}, in turn"
    return [
        at_least(
            f"selection / plain generation, {what}, {name}",
            ours,
            reference,
            REQUIRED_THROUGHPUT,
            f"{note}; {accumulated}",
        )
        for what, ours, accumulated in (
            ("default arms", everything, f"{len(default)} statistics, {len(histograms)} histogram"),
            ("Pearson alone", pearson, "1 statistic"),
        )
    ]


def memory(samples: tuple[int, int]) -> Line:
    """Return the peak memory of adding many samples divided by that of adding few."""
    d_sae, batch = 16_384, 500
    peaks = []
    for n in samples:
        rng = np.random.default_rng(0)
        tracemalloc.start()
        made = Accumulators({(1, PooledStatistic()): d_sae}, [PooledStatistic()])
        for _ in range(n // batch):
            columns = torch.tensor(rng.integers(0, d_sae, (batch, ACTIVE)))
            values = torch.zeros(batch, d_sae).scatter_(1, columns, 1.0)
            made.parts[1, PooledStatistic()].update(values, rng.random(batch) < 0.5)
        made.parts[1, PooledStatistic()].correlation.result()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    return at_most(
        f"accumulating a layer, {samples[1]} samples / {samples[0]}",
        peaks[1],
        peaks[0],
        ALLOWED_GROWTH,
        "peak of all arrays of Python and numpy, by tracemalloc",
        unit="MiB",
    )


def main() -> int:
    """Run all comparisons; return 1 if one missed its requirement."""
    size = chosen_size(__doc__)
    rows, repeats = {"tiny": (10, 1), "quick": (64, 3)}.get(size, (160, 7))
    samples = {"tiny": (500, 1_000), "quick": (1_000, 20_000)}.get(size, (1_000, 100_000))
    lines = [
        *throughput(size, "one token (select tasks)", 1, rows, repeats),
        *throughput(size, "32 tokens (free text)", 32, rows // 2, repeats),
        memory(samples),
    ]
    heading = "{} layers of width {}, perf_counter".format(*shape_of(size))
    return report(lines, "corrsteer", heading, judged=size != "tiny")


if __name__ == "__main__":
    sys.exit(main())
