"""The time of each stage against the floor that arithmetic and memory set.

``python -m benchmarks.bench_floor [--tiny | --quick | --full]`` prints a table and writes
``results/benchmarks/floor.csv``. The floor of a stage is the larger of two times: its fewest
operations at the rate of a large matrix product, and its fewest bytes at the rate of a large copy.
Both rates are measured here, in the stage's precision. No ratio is required.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.bench_caching import Work
from benchmarks.bench_generation import PROMPT_TOKENS, SITE, World
from benchmarks.common import alternate, arguments, random_model, run_name
from benchmarks.floor import Rates, Stage, as_line, attention, rates, weights
from benchmarks.floor_corrsteer import merging, selection, training
from benchmarks.floor_experiment import Experiment
from benchmarks.floor_fits import features, judge, probes
from benchmarks.floor_programs import directions, effects, solve, variants
from benchmarks.floor_tables import corrsteer_report, norm_matched, pareto
from benchmarks.options import scaled
from benchmarks.table import report
from steering_core.generation.adaptive import RowPrograms
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.metrics.divergence import divergence

TEXTS, ROWS = 40, 512


def model_stages(size: str, measured: Rates, repeats: int, folder: Path) -> list[Stage]:
    """Measure caching, generation, and KL with perplexity."""
    world = World(size)
    lm, prompts, new = world.lm, world.n, world.new_tokens
    blocks, head = weights(lm)
    word, layers = lm.dtype.itemsize, lm.shape.n_layers
    plan = world.plan("qp")
    world.adaptive(plan)  # extends the path as far as needed
    continuation = [row + row for row in world.prompts]  # as long as the generated texts
    capped = random_model(size, "gemma2")
    work = Work(capped, scaled(TEXTS, size), folder)
    caching, steered, adaptive, kl = alternate(
        [
            lambda: work.cache(list(range(layers)), "last"),
            world.steered,
            lambda: world.adaptive(plan),
            lambda: divergence(
                lm,
                world.prompts,
                continuation,
                prepend_bos=SITE.prepend_bos,
                intervention=Intervention({SITE: RowVectors(world.vectors)}),
            ),
        ],
        repeats,
    )
    length = PROMPT_TOKENS + new // 2
    read = prompts * (PROMPT_TOKENS + new - 1)
    cache = 2 * layers * lm.model.config.num_key_value_heads * lm.model.config.head_dim * word
    generating = read * (2 * blocks + attention(lm, length)) + prompts * new * 2 * head
    moved = new * (word * (blocks + head) + prompts * length * cache)
    added = prompts * new * lm.shape.d_model  # coordinates to which a vector is added
    compared = prompts * (PROMPT_TOKENS + new)
    cached = len(work.examples)
    return [
        Stage(
            "caching, all layers",
            caching,
            work.tokens * (2 * weights(capped)[0] + attention(capped, work.tokens // cached // 2)),
            len(work.batches) * word * weights(capped)[0] + 4 * cached * layers * lm.shape.d_model,
            measured,
        ),
        Stage("generation, steered", steered, generating + added, moved, measured),
        Stage(
            "generation, adaptive QP",
            adaptive,
            generating + 6 * added,
            moved + 2 * 4 * added,
            measured,
        ),
        solving(world, plan, 6.0 * added, added * (2.0 * word + 2 * 4), measured, repeats),
        Stage(
            "KL and perplexity",
            kl,
            2 * compared * (2 * blocks + attention(lm, length)) + 2 * prompts * new * 2 * head,
            2 * -(-compared // 2048) * word * (blocks + head),
            measured,
        ),
    ]


def solving(
    world: World, plan: RowPrograms, operations: float, moved: float, rates: Rates, repeats: int
) -> Stage:
    """Measure what an adaptive program adds to the passes of a generation, without the model."""
    rows = torch.arange(world.n, device=world.lm.device)
    residual = torch.randn(world.n, world.lm.shape.d_model, device=rows.device)
    residual = residual.to(world.lm.dtype)

    def run() -> None:
        steering = plan.start()
        for _ in range(world.new_tokens):
            steering.at(rows, residual)

    (spent,) = alternate([run], repeats)
    return Stage(f"adaptive QP alone, {world.new_tokens} steps", spent, operations, moved, rates)


def main() -> int:
    size = arguments(__doc__).size
    repeats, few = {"tiny": (1, 1), "quick": (7, 3)}.get(size, (3, 3))  # few: of stages of seconds
    lm, rows = random_model(size), scaled(ROWS, size)
    shape = {"tiny": 256, "quick": 2048}.get(size, 16_384), lm.shape.d_model
    cpu = torch.device("cpu")  # fits and solves run here
    model = rates(lm.device, lm.dtype, repeats)
    single, double = rates(cpu, torch.float32, repeats), rates(cpu, torch.float64, repeats)
    judging = rates(lm.device, torch.float32, repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of = Experiment(folder, *shape, size)
        stages = [
            *model_stages(size, model, repeats, folder),
            *features(folder, shape, rows, single, repeats),
            *probes(shape, rows, double, repeats),
            directions(of, double, repeats),
            solve(shape, double, repeats),
            variants(of, double, few),
            effects(of, double, repeats),
            norm_matched(of, double, repeats),
            judge(folder, size, judging, repeats),
            pareto(of, lm, double, repeats),
            *selection(size, single, few),
            *merging(folder, *shape, double, repeats),
            *training(size, single, few),
            corrsteer_report(size, double, repeats),
        ]
    lines = [as_line(stage) for stage in stages]
    return report(lines, "floor", f"{run_name(size)}, {model}; float64 {double}")


if __name__ == "__main__":
    sys.exit(main())
