"""Floors of the tables with intervals, with the usual number of rows; counts resampled numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.common import alternate
from benchmarks.floor import Rates, Stage
from benchmarks.floor_experiment import SETTINGS, Experiment
from steering_core.config.methods import solves_once
from steering_core.corrsteer.report import paired, result_table
from steering_core.methods.base import read_fixed_vectors
from steering_core.metrics.probe_effects import all_norm_matched_effects
from steering_core.statistics import bootstrap
from steering_core.tables.norm_matched import norm_matched_table
from steering_core.tables.pages import changes_page
from steering_core.tables.pareto import Subject, gather, pareto_table

SEEDS, ARMS, ANSWERS = 2, 4, 300


@contextmanager
def counted_sums() -> Iterator[list[int]]:
    """Record how many numbers each interval inside the block adds up."""
    noted: list[int] = []
    own = bootstrap.resampled_sums

    def sums(samples: Sequence[np.ndarray], *, seed: int, n_resamples: int) -> np.ndarray:
        noted.append(len(samples) * samples[0].size * n_resamples)
        return own(samples, seed=seed, n_resamples=n_resamples)

    with patch.object(bootstrap, "resampled_sums", sums):
        yield noted


def pareto(of: Experiment, rates: Rates, repeats: int) -> Stage:
    """Measure the Pareto table of an experiment's own solutions, with made-up texts."""
    solutions, rng = pd.read_parquet(of.solutions), np.random.default_rng(0)
    effects = of.effects().assign(split="test")
    texts = solutions.loc[
        solutions["split"] == "prompt", ["method", "strength_index", "example_id"]
    ]
    judged = texts.assign(
        score=rng.random(len(texts)), judged=lambda rows: (rows["score"] > 0.5) * 1.0, empty=0.0
    )
    texts = texts.assign(
        n_tokens=rng.integers(50, 100, len(texts)),
        kl_sum=rng.exponential(50.0, len(texts)),
        base_nll_sum=rng.exponential(200.0, len(texts)),
        steered_positions=1,
        unsolved_positions=0,
    )
    subject = Subject("bench", "random", "none", 0, [], "", "")

    def run() -> None:
        pareto_table(subject, gather(solutions, effects, [texts], judged), SETTINGS)

    return _table(f"pareto, {len(effects.groupby(['method', 'strength_index']))} strengths", run,
                  (solutions, effects, texts), rates, repeats)  # fmt: skip


def norm_matched(of: Experiment, rates: Rates, repeats: int) -> Stage:
    """Measure the comparison of programs and directions at equal norm, and its table."""
    directions = read_fixed_vectors(of.directions)
    programs = [method for method in SETTINGS.methods if solves_once(method)]

    def run() -> None:
        rows = all_norm_matched_effects(
            map(of.interventions, programs),
            directions,
            of.test.ids,
            of.test.residuals,
            of.evaluation_probe,
        )
        norm_matched_table(rows, "bench", n_resamples=SETTINGS.bootstrap_resamples)

    rows = pd.read_parquet(of.solutions)
    rows = rows[rows["method"].isin(programs) & (rows["split"] == "test")]
    return _table(f"norm-matched, {len(directions)} directions", run, [rows], rates, repeats)


def corrsteer_report(rates: Rates, repeats: int) -> Stage:
    """Measure CorrSteer's results and the page of changed answers."""
    rng = np.random.default_rng(0)
    arms = ["unsteered", *(f"arm{i}" for i in range(ARMS))]

    def answers() -> pd.DataFrame:
        success = rng.random(ANSWERS) < 0.6
        return pd.DataFrame({"example_id": [f"x{i}" for i in range(ANSWERS)]}).assign(
            prompt=" ".join(f"w{i}" for i in range(100)),
            gold="A",
            n_options=4,
            text=np.where(success, "A", "B"),
            answer=np.where(success, "A", "B"),
            success=success,
            status="ok",
            reason="",
            layers=[[1, 2, 3]] * ANSWERS,
            strength="scale 1",
            norm=rng.random(ANSWERS),
            n_features=3,
        )

    runs = {seed: {arm: answers() for arm in arms} for seed in range(SEEDS)}

    def run() -> None:
        result_table("bench", runs, n_resamples=SETTINGS.bootstrap_resamples)
        pairs = {
            seed: {arm: paired(of["unsteered"], rows) for arm, rows in of.items()}
            for seed, of in runs.items()
        }
        changes_page("bench", pairs)

    frames = [rows for of in runs.values() for rows in of.values()]
    what = f"corrsteer report, {SEEDS} seeds, {ARMS} arms, {ANSWERS} answers"
    return _table(what, run, frames, rates, repeats)


def _table(
    name: str,
    run: Callable[[], None],
    frames: Sequence[pd.DataFrame],
    rates: Rates,
    repeats: int,
) -> Stage:
    with counted_sums() as noted:
        run()
    (spent,) = alternate([run], repeats)
    moved = sum(frame.memory_usage(index=False).sum() for frame in frames)
    return Stage(
        f"{name}, {len(noted)} intervals of {SETTINGS.bootstrap_resamples} resamples",
        spent, float(sum(noted)), float(moved), rates,
    )  # fmt: skip
