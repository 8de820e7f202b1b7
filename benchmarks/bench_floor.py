"""How far each stage is from the floor that arithmetic and memory set.

``python -m benchmarks.bench_floor [--quick | --full]`` prints a table and writes
``results/benchmarks/floor.csv``. The floor of a stage is the
larger of its fewest operations at the rate of a large matrix product and its fewest bytes at the
rate of a large copy, both measured here, in the stage's precision. Nothing is required of these
ratios.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.bench_caching import Work
from benchmarks.bench_generation import NEW_TOKENS, PROMPT_TOKENS, PROMPTS, SITE, World
from benchmarks.common import alternate, arguments, random_model, run_name
from benchmarks.floor import Rates, Stage, as_line, attention, rates, weights
from benchmarks.floor_fits import features, judge, probes, solve
from benchmarks.table import report
from steering_core.metrics.divergence import divergence

TEXTS, ROWS = 40, 512


def model_stages(size: str, measured: Rates, repeats: int, folder: Path) -> list[Stage]:
    """Caching, generation, and KL with perplexity."""
    world = World(size)
    lm = world.lm
    blocks, head = weights(lm)
    word, layers = lm.dtype.itemsize, lm.shape.n_layers
    plan = world.plan("qp")
    world.adaptive(plan)  # follows the path as far as it will be needed
    continuation = [row + row for row in world.prompts]  # as long as what is generated
    capped = random_model(size, "gemma2")
    work = Work(capped, TEXTS, folder)
    caching, steered, adaptive, kl = alternate(
        [
            lambda: work.cache(list(range(layers)), "last"),
            world.steered,
            lambda: world.adaptive(plan),
            lambda: divergence(lm, world.prompts, continuation, site=SITE, vectors=world.vectors),
        ],
        repeats,
    )
    length = PROMPT_TOKENS + NEW_TOKENS // 2
    read = PROMPTS * (PROMPT_TOKENS + NEW_TOKENS - 1)
    cache = 2 * layers * lm.model.config.num_key_value_heads * lm.model.config.head_dim * word
    generation = (
        read * (2 * blocks + attention(lm, length)) + PROMPTS * NEW_TOKENS * 2 * head,
        NEW_TOKENS * (word * (blocks + head) + PROMPTS * length * cache),
        measured,
    )
    compared = PROMPTS * (PROMPT_TOKENS + NEW_TOKENS)
    return [
        Stage(
            "caching, all layers",
            caching,
            work.tokens * (2 * weights(capped)[0] + attention(capped, work.tokens // TEXTS // 2)),
            len(work.batches) * word * weights(capped)[0] + 4 * TEXTS * layers * lm.shape.d_model,
            measured,
        ),
        Stage("generation, steered", steered, *generation),
        Stage("generation, adaptive QP", adaptive, *generation),
        Stage(
            "KL and perplexity",
            kl,
            2 * compared * (2 * blocks + attention(lm, length))
            + 2 * PROMPTS * NEW_TOKENS * 2 * head,
            2 * (compared // 2048) * word * (blocks + head),
            measured,
        ),
    ]


def main() -> int:
    size = arguments(__doc__).size
    repeats = 7 if size == "quick" else 3
    lm = random_model(size)
    shape = 2048 if size == "quick" else 16_384, lm.shape.d_model
    cpu = torch.device("cpu")  # where fits and solves run
    model = rates(lm.device, lm.dtype, repeats)
    single, double = rates(cpu, torch.float32, repeats), rates(cpu, torch.float64, repeats)
    judging = rates(lm.device, torch.float32, repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages = [
            *model_stages(size, model, repeats, folder),
            *features(folder, shape, ROWS, single, repeats),
            *probes(shape, ROWS, double, repeats),
            solve(shape, double, repeats),
            judge(folder, size, judging, repeats),
        ]
    lines = [as_line(stage) for stage in stages]
    return report(lines, "floor", f"{run_name(size)}, {model}; float64 {double}")


if __name__ == "__main__":
    sys.exit(main())
