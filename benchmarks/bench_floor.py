"""How far each stage of the model side is from the floor that arithmetic and memory set.

``python -m benchmarks.bench_floor [--quick | --full]`` prints a table and writes
``results/benchmarks/floor.csv``. The floor of a stage is the larger of its fewest operations at
the rate of a large matrix product and its fewest bytes at the rate of a large copy, both measured
here, in the model's precision. Nothing is required of these ratios.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.bench_caching import Work
from benchmarks.bench_generation import NEW_TOKENS, PROMPT_TOKENS, PROMPTS, SITE, World
from benchmarks.common import alternate, arguments, random_model, run_name
from benchmarks.table import Line, report
from steering_core.metrics.divergence import divergence
from steering_core.models.language_model import LanguageModel

TEXTS = 40


def rates(lm: LanguageModel, repeats: int) -> tuple[float, float]:
    """Operations and bytes per second of this machine, in the model's precision."""
    side = 8192 if lm.device.type == "cuda" else 1024
    a = torch.randn(side, side, device=lm.device).to(lm.dtype)
    source = torch.randn(2**26 // 4, device=lm.device)
    target = torch.empty_like(source)
    product, copy = alternate([lambda: a @ a, lambda: target.copy_(source)], 5 * repeats)
    return 2 * side**3 / product, 2 * source.nbytes / copy


def weights(lm: LanguageModel) -> tuple[int, int]:
    """Parameters of the blocks, and of the unembedding."""
    blocks = sum(p.numel() for p in lm.blocks.parameters())
    return blocks, lm.model.get_output_embeddings().weight.numel()


def attention(lm: LanguageModel, positions: int) -> int:
    """Operations of one token's attention to ``positions`` others, in all layers."""
    config = lm.model.config
    return 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * positions


def main() -> int:
    size = arguments(__doc__).size
    repeats = 7 if size == "quick" else 3
    world = World(size)
    lm = world.lm
    flops, bandwidth = rates(lm, repeats)
    blocks, head = weights(lm)
    word, layers = lm.dtype.itemsize, lm.shape.n_layers
    plan = world.plan("qp")
    world.adaptive(plan)  # follows the path as far as it will be needed
    continuation = [row + row for row in world.prompts]  # as long as what is generated
    with tempfile.TemporaryDirectory() as folder:
        capped = random_model(size, "gemma2")
        work = Work(capped, TEXTS, Path(folder))
        caching, steered, adaptive, kl = alternate(
            [
                lambda: work.cache(list(range(layers)), "last"),
                world.steered,
                lambda: world.adaptive(plan),
                lambda: divergence(
                    lm, world.prompts, continuation, site=SITE, vectors=world.vectors
                ),
            ],
            repeats,
        )
    length = PROMPT_TOKENS + NEW_TOKENS // 2
    read = PROMPTS * (PROMPT_TOKENS + NEW_TOKENS - 1)
    cache = 2 * layers * lm.model.config.num_key_value_heads * lm.model.config.head_dim * word
    generation = (
        read * (2 * blocks + attention(lm, length)) + PROMPTS * NEW_TOKENS * 2 * head,
        NEW_TOKENS * (word * (blocks + head) + PROMPTS * length * cache),
    )
    compared = PROMPTS * (PROMPT_TOKENS + NEW_TOKENS)
    stages = {
        "caching, all layers": (
            caching,
            work.tokens * (2 * weights(capped)[0] + attention(capped, work.tokens // TEXTS // 2)),
            len(work.batches) * word * weights(capped)[0] + 4 * TEXTS * layers * lm.shape.d_model,
        ),
        "generation, steered": (steered, *generation),
        "generation, adaptive QP": (adaptive, *generation),
        "KL and perplexity": (
            kl,
            2 * compared * (2 * blocks + attention(lm, length))
            + 2 * PROMPTS * NEW_TOKENS * 2 * head,
            2 * (compared // 2048) * word * (blocks + head),
        ),
    }
    lines = []
    for stage, (spent, operations, moved) in stages.items():
        floor = max(operations / flops, moved / bandwidth)
        bound = "operations" if operations / flops >= moved / bandwidth else "bytes"
        lines.append(
            Line(
                stage,
                spent,
                floor,
                spent / floor,
                note=f"{operations / 1e9:.3g} GFLOP, {moved / 1e9:.3g} GB; bound by {bound}",
            )
        )
    measured = f"{flops / 1e9:.3g} GFLOP/s, {bandwidth / 1e9:.3g} GB/s"
    return report(lines, "floor", f"{run_name(size)}, {measured}")


if __name__ == "__main__":
    sys.exit(main())
