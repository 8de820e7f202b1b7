"""Floors of CorrSteer's stages: selection, merging of shards, a plan, and fine-tuning."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.bench_corrsteer import Longer, build, questions
from benchmarks.common import alternate
from benchmarks.floor import Rates, Stage, attention, weights
from benchmarks.options import scaled
from steering_core.config.corrsteer_schema import DEFAULT_ARMS, Arm, CorrSteerSettings, FineTuning
from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.answers import Decoding, Session
from steering_core.corrsteer.fine_tune import fine_tune, training_ids
from steering_core.corrsteer.plan import make_plan
from steering_core.corrsteer.scores import PooledStatistic, snapshot, statistics_of
from steering_core.corrsteer.selection import make_readers, select
from steering_core.corrsteer.tasks import Source, Task
from steering_core.models.site import Site
from steering_core.storage.arrays import load_arrays, save_arrays

PROMPTS, LAYERS, SHARDS, SAMPLES, ACTIVE, TRAINED = 48, 4, 3, 200, 70, 12


def wanted() -> tuple[list[PooledStatistic], list[PooledStatistic]]:
    """Return the statistics that the default arms accumulate, and those with a histogram."""
    names, histograms = statistics_of(CorrSteerSettings().arms, "max")
    return (
        [PooledStatistic.parse(name) for name in names],
        [PooledStatistic.parse(name) for name in histograms],
    )


def selection(size: str, rates: Rates, repeats: int) -> list[Stage]:
    """Measure selection with the statistics of the default arms, for 1 token and for 32."""
    lm, encoders, sites = build(size)
    accumulated, histograms = wanted()
    readers = make_readers(encoders, sites, accumulated, lm.shape.d_model)
    stages = []
    prompts = scaled(PROMPTS, size)
    for tokens, n in ((1, prompts), (32, prompts // 2)):
        rows, how = questions(n), Decoding(tokens, batch_rows=8)
        task = Task("bench", Source("-", "-"), lambda row: None, Longer(), tokens)

        session = Session(lm, task, how, None, reasoned=False, sites=sites)

        def run(session=session, rows=rows) -> None:
            select(session, rows, readers, accumulated, histograms=histograms)

        (spent,) = alternate([run], repeats)
        made = [(i, len(t.split())) for decoded, texts in session.complete(rows)
                for i, t in zip(decoded.rows, texts, strict=True)]  # fmt: skip
        operations, moved = _answering(session, rows)
        pooled = sum(length for _, length in made)
        width = 2.0 * lm.shape.d_model * sum(encoder.d_sae for encoder in encoders.values())
        stages.append(
            Stage(
                f"CorrSteer selection, {n} prompts, up to {tokens} tokens",
                spent,
                operations + width * pooled,
                moved + 2.0 * width * -(-n // how.batch_rows),
                rates,
            )
        )
    return stages


def _answering(session: Session, rows: pd.DataFrame) -> tuple[float, float]:
    """Return the fewest operations and bytes of answering ``rows``, without padding."""
    lm = session.lm
    blocks, head = weights(lm)
    word, config = lm.dtype.itemsize, lm.model.config
    cache = 2 * lm.shape.n_layers * config.num_key_value_heads * config.head_dim * word
    prompts = rows["prompt"].str.split().str.len().to_numpy() + 1  # BOS
    operations = moved = 0.0
    for decoded, texts in session.complete(rows):
        asked, made = prompts[decoded.rows], np.array([len(text.split()) for text in texts])
        lengths = asked + made / 2
        looked = attention(lm, 1) * lengths
        operations += ((asked + made - 1) * (2 * blocks + looked) + made * 2 * head).sum()
        moved += made.max() * word * (blocks + head) + (made * lengths).sum() * cache
    return operations, moved


def merging(folder: Path, d_sae: int, d_model: int, rates: Rates, repeats: int) -> list[Stage]:
    """Measure merging the shards of some layers, and the plans of two arms from the merged sums."""
    accumulated, histograms = wanted()
    sizes = {
        (layer, statistic): d_sae if statistic.space == "features" else d_model
        for layer in range(LAYERS)
        for statistic in accumulated
    }
    files = [folder / f"shard{i}.safetensors" for i in range(SHARDS)]
    merged_file = folder / "merged.safetensors"
    for seed, file in enumerate(files):
        save_arrays(file, _accumulated(sizes, histograms, seed).to_arrays())

    def merge() -> None:
        merged = Accumulators.from_arrays(load_arrays(files[0])[0])
        for file in files[1:]:
            merged.merge(Accumulators.from_arrays(load_arrays(file)[0]))
            snapshot(merged)
        save_arrays(merged_file, merged.to_arrays())

    merge()
    rows = np.random.default_rng(0).standard_normal((d_sae, d_model), dtype=np.float32)
    arms = {name: Arm(**DEFAULT_ARMS[name]) for name in ("corrsteer_a", "spare_mi")}

    def plan(arm: Arm) -> None:
        made = make_plan(
            arm,
            Accumulators.from_arrays(load_arrays(merged_file)[0]),
            {layer: Site(layer, "post", False, True) for layer in range(LAYERS)},
            lambda layer, features: rows[features],
            task_pooling="max",
            keep=CorrSteerSettings().keep,
            seed=0,
        )
        made.save(folder / "plan.safetensors")
        made.table().to_csv(index=False)

    spent = alternate([merge, *(lambda arm=arm: plan(arm) for arm in arms.values())], repeats)
    sums = {name: array.size for name, array in load_arrays(merged_file)[0].items()}
    everything = sum(sums.values())
    scored = [size for name, size in sums.items() if "features" in name]
    moments = sum(size for name, size in sums.items() if "features" in name and "hist" not in name)
    what = f"{LAYERS} layers of {d_sae} features"
    return [
        Stage(f"CorrSteer merge, {SHARDS} shards, {what}", spent[0],
              float((SHARDS - 1) * everything), 8.0 * (SHARDS + 1) * everything, rates),
        # About five numbers per feature from the moments of each class.
        Stage(f"CorrSteer plan by correlation, {what}", spent[1],
              float(moments), 8.0 * moments, rates),
        Stage(f"CorrSteer plan by mutual information, {what}", spent[2],
              4.0 * sum(scored), 8.0 * sum(scored), rates),
    ]  # fmt: skip


def _accumulated(sizes, histograms: list[PooledStatistic], seed: int) -> Accumulators:
    """Return the sums over some random samples."""
    rng = np.random.default_rng(seed)
    made = Accumulators(sizes, histograms)
    success = rng.random(SAMPLES) < 0.5
    for (layer, statistic), size in sizes.items():
        values = torch.zeros(SAMPLES, size)
        if statistic.space == "features":
            columns = torch.tensor(rng.integers(0, size, (SAMPLES, ACTIVE)))
            values.scatter_(1, columns, torch.tensor(rng.random(columns.shape)).float())
        else:
            values = torch.tensor(rng.standard_normal((SAMPLES, size))).float()
        made.parts[layer, statistic].update(values, success)
    made.n = SAMPLES
    return made


def training(size: str, rates: Rates, repeats: int) -> list[Stage]:
    """Measure fine-tuning of all weights, and by LoRA, with one row per step."""
    rows = questions(scaled(TRAINED, size)).assign(worked="w1 w2 w3 w4")
    stages = []
    for method in ("full", "lora"):
        lm, _, _ = build(size)
        settings = FineTuning(method=method)
        examples = training_ids(lm, rows, prepend_bos=True)

        def run(lm=lm, settings=settings) -> None:
            fine_tune(lm, rows, settings, seed=0, prepend_bos=True)

        (spent,) = alternate([run], repeats)
        tokens = np.array([len(ids) for ids, _ in examples], dtype=float)
        answered = sum(len(ids) - asked for ids, asked in examples)
        blocks, head = weights(lm)
        linear = [m for m in lm.blocks.modules() if isinstance(m, torch.nn.Linear)]
        adapters = settings.lora_rank * sum(m.in_features + m.out_features for m in linear)
        whole = sum(p.numel() for p in lm.model.parameters())
        full = method == "full"
        passes, trained = (6.0, whole) if full else (4.0, adapters)
        looking = 3 * (tokens * attention(lm, 1) * tokens / 2).sum()
        extra = 0.0 if full else 6.0 * adapters * tokens.sum()
        stages.append(
            Stage(
                f"CorrSteer fine-tuning, {method}, {len(rows)} rows",
                spent,
                passes * (blocks * tokens.sum() + head * answered) + looking + extra,
                len(rows) * (2.0 * 4 * (blocks + head) + 32.0 * trained),
                rates,
            )
        )
    return stages
