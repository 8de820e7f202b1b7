"""Floors of the stages that solve and apply programs: solve, variants, directions, effects.

``solve`` uses a large batch; the others share the small :class:`Experiment`.
"""

import numpy as np
import pandas as pd

from benchmarks.common import alternate
from benchmarks.floor import Rates, Stage
from benchmarks.floor_experiment import SETTINGS, Experiment
from steering_core.methods.base import read_fixed_vectors
from steering_core.methods.solutions import ModelUnits
from steering_core.methods.variants import variants_of_test_rows
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath

INPUTS = 1000


def solve(shape: tuple[int, int], rates: Rates, repeats: int) -> Stage:
    """Measure the path of a probe over a dictionary, and the QP of many inputs on it."""
    d_sae, d_model = shape
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((d_sae, d_model), dtype=np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.random(40) @ decoder[:40].astype(float)
    shortfall = rng.uniform(0.5, 6.0, INPUTS)
    path = None

    def run() -> None:
        nonlocal path
        path = SteeringPath.fit(decoder, weight)
        path.qp(shortfall, 1.0)

    (spent,) = alternate([run], repeats)
    knots = path.knots.s.size
    return Stage(
        f"solve: a path of {knots} knots and {INPUTS} inputs, d_sae {d_sae}",
        spent, 2.0 * d_model * d_sae * knots, float(decoder.nbytes), rates,
    )  # fmt: skip


def variants(of: Experiment, rates: Rates, repeats: int) -> Stage:
    """Measure every variant of both programs, for a few inputs."""
    activations = dict(zip(of.train.ids + of.test.ids, range(of.activations.shape[0]), strict=True))
    residuals = {
        name: row
        for part in (of.train, of.test)
        for name, row in zip(part.ids, part.residuals, strict=True)
    }
    dictionary = Dictionary(of.decoder)
    found = None

    def run() -> None:
        nonlocal found
        found = variants_of_test_rows(
            SETTINGS,
            pd.DataFrame({"example_id": of.train.ids, "label": of.train.labels}),
            of.test.ids,
            residuals_of=lambda ids: np.stack([residuals[name] for name in ids]),
            features_of=lambda ids: of.activations[[activations[name] for name in ids]],
            probe=of.probe,
            evaluation_probe=of.evaluation_probe,
            dictionary=dictionary,
            path=of.path,
            target_class=1,
            units=ModelUnits(1.0, 1.0),
        )

    (spent,) = alternate([run], repeats)
    d_sae, d_model = of.decoder.shape
    # ``shared`` solves once for all inputs; each row repeats its numbers.
    shared = found["variant"] == "shared"
    counted = pd.concat([found[~shared], found[shared].drop_duplicates(["program", "parameter"])])
    rounds = counted["rounds"].sum()
    n = found["example_id"].nunique()
    return Stage(
        f"variants: {found['variant'].nunique()} of both programs, {n} inputs, d_sae {d_sae}",
        spent, 2.0 * d_model * d_sae * rounds, 8.0 * d_model * d_sae * rounds, rates,
    )  # fmt: skip


def directions(of: Experiment, rates: Rates, repeats: int) -> Stage:
    """Measure fitting all fixed directions, from residuals in memory to the file."""
    (spent,) = alternate([of.fit_directions], repeats)
    d_sae, d_model = of.decoder.shape
    chosen, rows = 1 + SETTINGS.topk, len(of.train.labels)
    pairs, queries = len(of.pairs.labels) // 2, len(of.queries.labels) // 2
    return Stage(
        f"directions, {rows} rows, {pairs} pairs, {queries} queries, d_sae {d_sae}",
        spent,
        d_model * (3.0 * rows + 2.0 * pairs + 5.0 * queries),
        4.0 * d_model * (rows + 2 * pairs + 2 * queries + chosen) + 8.0 * d_sae,
        rates,
    )  # fmt: skip


def effects(of: Experiment, rates: Rates, repeats: int) -> Stage:
    """Measure both probes on all test rows and strengths, from the files of the solve stage."""
    points = pd.read_parquet(of.solutions, columns=["method", "strength_index"]).drop_duplicates()
    (spent,) = alternate([of.effects], repeats)
    n, d_model = of.test.residuals.shape
    cells = n * len(points)
    ways = of.path.knots.s.size + len(read_fixed_vectors(of.directions))
    # Logits are piecewise linear in the position on the path and linear in the strength, like the
    # vectors. So both probes need each row, knot and direction only once.
    return Stage(
        f"probe effects, {n} rows, {len(points)} strengths", spent,
        4.0 * d_model * (n + ways) + 8.0 * cells,
        d_model * (4.0 * n + 8.0 * ways) + 32.0 * cells, rates,
    )  # fmt: skip
