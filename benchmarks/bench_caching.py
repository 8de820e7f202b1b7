"""Time of caching activations against a bare truncated pass over the same batches.

``python -m benchmarks.bench_caching [--tiny | --quick | --full]`` prints a table, writes
``results/benchmarks/caching.csv`` and fails if a required ratio is missed.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmarks.common import alternate, arguments, random_model, run_name, texts
from benchmarks.table import Line, at_least, at_most, compared, report
from steering_core.activations.cache import cache_activations
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch, pad, padded_width, token_batches, tokenize

MAX_TOKENS, BATCH_TOKENS = 128, 2048


def bare_pass(lm: LanguageModel, n_layers: int) -> nn.Module:
    """Return a model of the first blocks alone, sharing the weights."""
    with torch.device("meta"):
        base = type(lm.model.base_model)(lm.model.config)
    base.embed_tokens, base.rotary_emb = lm.model.model.embed_tokens, lm.model.model.rotary_emb
    base.layers, base.norm = lm.model.model.layers[:n_layers], nn.Identity()
    return base.eval()


class Work:
    """The same batches for every contestant."""

    def __init__(self, lm: LanguageModel, n_texts: int, folder: Path):
        self.lm, self.path = lm, folder / "part.parquet"
        self.examples = pd.DataFrame(
            {"example_id": [f"e{i}" for i in range(n_texts)], "text": texts(n_texts, 20, 100)}
        )
        rows = tokenize(lm.tokenizer, self.examples["text"], prepend_bos=True)
        self.tokens = sum(map(len, rows))
        # Padded as the cache pads (to widths at which sums round alike), and as little as possible.
        self.batches = self._batches(rows, lm.shape.context)
        self.tight = self._batches(rows, None)

    def _batches(self, rows: list[list[int]], context: int | None) -> list[TokenBatch]:
        widths = [padded_width(len(row), context) if context else len(row) for row in rows]
        padding = {"side": "right", "prepend_bos": True, "context": context}
        return [
            pad([rows[i] for i in chosen], self.lm.tokenizer, **padding)
            for chosen in token_batches(widths, BATCH_TOKENS)
        ]

    @torch.no_grad()
    def bare(self, blocks: nn.Module, batches: list[TokenBatch]) -> None:
        """Run ``batches`` through ``blocks`` and keep nothing."""
        for batch in batches:
            ids, mask = batch.ids.to(self.lm.device), batch.mask.to(self.lm.device)
            blocks(input_ids=ids, attention_mask=mask.long(), use_cache=False)

    def cache(self, layers: list[int], positions: str) -> None:
        """Cache the outputs of ``layers``."""
        cache_activations(
            self.lm,
            self.examples,
            [Site(layer, "post", False, True) for layer in layers],
            self.path,
            max_tokens=MAX_TOKENS,
            batch_tokens=BATCH_TOKENS,
            positions=positions,
        )


def main() -> int:
    size = arguments(__doc__).size
    n_texts, repeats = {"tiny": (4, 1), "quick": (60, 9), "small": (80, 9), "full": (2000, 5)}[size]
    lm = random_model(size, "gemma2")
    last = lm.shape.n_layers - 1
    middle = last // 2
    with tempfile.TemporaryDirectory() as folder:
        work = Work(lm, n_texts, Path(folder))
        to_middle, to_last = bare_pass(lm, middle + 1), bare_pass(lm, last + 1)
        names = "bare middle,bare last,tight,middle,last,all,all tokens,every".split(",")
        times = alternate(
            [
                lambda: work.bare(to_middle, work.batches),
                lambda: work.bare(to_last, work.batches),
                lambda: work.bare(to_last, work.tight),
                lambda: work.cache([middle], "last"),
                lambda: work.cache([last], "last"),
                lambda: work.cache(list(range(last + 1)), "last"),
                lambda: work.cache([last], "all"),
                lambda: work.cache(list(range(last + 1)), "all"),
            ],
            repeats,
        )
    spent = dict(zip(names, times, strict=True))
    note = f"{n_texts} texts, {work.tokens} tokens, {len(work.batches)} batches; best of {repeats}"
    everything = f"{last + 1} layers"
    lines: list[Line] = [
        at_least(
            f"cache layer {middle} / bare pass", spent["middle"], spent["bare middle"], 0.9, note
        ),
        at_least(f"cache {everything} / bare pass", spent["all"], spent["bare last"], 0.9, note),
        compared(
            f"cache {everything} / bare pass padded as little as can be",
            spent["all"],
            spent["tight"],
            "the price of the same sums in any batch",
        ),
        at_most(f"cost of {everything} / of the last alone", spent["all"], spent["last"], 1.3),
        at_least(
            f"cache layer {last}, every token / bare pass",
            spent["all tokens"],
            spent["bare last"],
            0.9,
        ),
        compared(
            f"cache {everything}, every token / bare pass",
            spent["every"],
            spent["bare last"],
            "not what the pipeline does",
        ),
    ]
    return report(lines, "caching", run_name(size), judged=size != "tiny")


if __name__ == "__main__":
    sys.exit(main())
