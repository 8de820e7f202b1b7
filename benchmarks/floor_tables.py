"""Floors of the tables with intervals, with the usual number of rows; counts resampled numbers.

Texts and verdicts are made by the stages before the tables, so they have the columns of a real run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.bench_generation import SITE
from benchmarks.common import alternate, texts
from benchmarks.floor import Rates, Stage
from benchmarks.floor_experiment import SETTINGS, Experiment
from benchmarks.options import scaled
from steering_core.config.methods import solves_once
from steering_core.corrsteer.answers import SCHEMA, judged
from steering_core.corrsteer.report import paired, result_table
from steering_core.corrsteer.tasks import find_task
from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import SteeredMethod
from steering_core.generation.table import generate_method
from steering_core.methods.base import read_fixed_vectors
from steering_core.metrics.divergence import text_divergence
from steering_core.metrics.judges import ClassJudge
from steering_core.metrics.judging import judge_texts
from steering_core.metrics.probe_effects import all_norm_matched_effects
from steering_core.models.language_model import LanguageModel
from steering_core.statistics import bootstrap
from steering_core.tables.measured import gather
from steering_core.tables.norm_matched import norm_matched_table
from steering_core.tables.pages import changes_page
from steering_core.tables.pareto import Subject, pareto_table

SEEDS, ARMS, ANSWERS = 2, 4, 300
#: Tokens of the texts. Their number does not matter to a table, which has a row a text.
NEW_TOKENS, BATCH_TOKENS = 8, 2048


class OddLength(ClassJudge):
    """A judge that needs no model: a text with an odd number of letters is in class 1."""

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([0.9 if len(text) % 2 else 0.1 for text in texts])


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


def measured_texts(of: Experiment, lm: LanguageModel) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Return the divergences of the texts of each method, and the verdicts on all texts.

    Args:
        of: its prompts are steered by its solutions.
        lm: as wide as the experiment's residuals; its texts are short.
    """
    ids = of.prompts.ids
    prompts = pd.DataFrame({"example_id": ids, "text": texts(len(ids), 4, 12)})
    divergences, generations = [], []
    for method in SETTINGS.methods:
        steered = SteeredMethod(of.interventions(method), SITE)
        made = generate_method(
            lm, prompts, steered, Sampling(NEW_TOKENS), max_tokens=64, batch_size=len(ids)
        )
        divergences.append(text_divergence(lm, made, steered, batch_tokens=BATCH_TOKENS))
        generations.append(made)
    return divergences, judge_texts(pd.concat(generations, ignore_index=True), OddLength(), 1)


def pareto(of: Experiment, lm: LanguageModel, rates: Rates, repeats: int) -> Stage:
    """Measure the Pareto table of an experiment's own solutions and texts."""
    solutions, effects = pd.read_parquet(of.solutions), of.effects().assign(split="test")
    divergences, verdicts = measured_texts(of, lm)
    subject = Subject("bench", "random", "none", 0, [], "", "")

    def run() -> None:
        pareto_table(subject, gather(solutions, effects, divergences, verdicts), SETTINGS)

    strengths = len(effects.groupby(["method", "strength_index"]))
    read = (solutions, effects, *divergences, verdicts)
    return _table(f"pareto, {strengths} strengths", run, read, rates, repeats)


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


def corrsteer_report(size: str, rates: Rates, repeats: int) -> Stage:
    """Measure CorrSteer's results and the page of changed answers."""
    rng, n, task = np.random.default_rng(0), scaled(ANSWERS, size), find_task("mmlu")
    arms = ["unsteered", *(f"arm{i}" for i in range(ARMS))]
    rows = pd.DataFrame(
        {
            "example_id": [f"x{i}" for i in range(n)],
            "prompt": " ".join(f"w{i}" for i in range(100)),
            "gold": "A",
            "letters": [["A", "B", "C", "D"]] * n,
        }
    )

    def answers() -> pd.DataFrame:
        made = np.where(rng.random(n) < 0.6, "A", "B").tolist()
        steered = {"layers": [[1, 2, 3]] * n, "strength": "scale 1", "norm": rng.random(n)}
        answered = judged(rows, made, task, None, reasoned=False)
        return answered.assign(**steered, n_features=3)[SCHEMA.names]

    runs = {seed: {arm: answers() for arm in arms} for seed in range(SEEDS)}

    def run() -> None:
        result_table("bench", runs, n_resamples=SETTINGS.bootstrap_resamples)
        pairs = {
            seed: {arm: paired(of["unsteered"], rows) for arm, rows in of.items()}
            for seed, of in runs.items()
        }
        changes_page("bench", pairs)

    frames = [rows for of in runs.values() for rows in of.values()]
    what = f"corrsteer report, {SEEDS} seeds, {ARMS} arms, {n} answers"
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
