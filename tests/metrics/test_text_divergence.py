"""Metrics of the divergence of texts: none where there is no text."""

import numpy as np
import pandas as pd
import pytest

from steering_core.generation.generate import Sampling
from steering_core.generation.table import generate_method
from steering_core.methods.interventions import Interventions
from steering_core.methods.programs import solve_programs
from steering_core.methods.solutions import GridPoint
from steering_core.metrics.divergence import divergence
from steering_core.metrics.text_divergence import text_divergence
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe

SITE = Site(2, "pre", False, True)
IDS = [f"p{i}" for i in range(4)]
PROMPTS = ["w1 w2", "w3", "w4 w5 w6", "w7 w8"]


def probe(weight, bias=0.0):
    return LinearProbe(weight, bias, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(60, 32)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.normal(size=32)
    path = SteeringPath.fit(decoder, weight)
    residuals = np.outer([5.0, -1.0, -1e4, -3.0], weight / (weight @ weight))
    points = [
        GridPoint("convex_optimal", i, "epsilon", epsilon, 0.5, None, epsilon)
        for i, epsilon in enumerate((3.0, 6.0))
    ]
    rows = solve_programs(points, IDS, residuals, probe(weight), path)
    return Interventions(rows, tmp_path_factory.mktemp("d") / "none.safetensors", path)


@pytest.fixture(scope="module")
def generations(tiny, solved):
    return generate_method(
        tiny,
        pd.DataFrame({"example_id": IDS, "text": PROMPTS}),
        solved,
        SITE,
        Sampling(new_tokens=6, temperature=1.0, top_p=0.9),
        positions="last",
        max_tokens=20,
        batch_size=3,
    )


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("stored", [False, True])
def test_divergence_of_texts(tiny, solved, generations, positions, stored, tmp_path):
    table = generations
    if stored:
        from steering_core.generation.table import write_generations

        write_generations(generations, tmp_path / "g.parquet")
        table = pd.read_parquet(tmp_path / "g.parquet")
    got = text_divergence(tiny, table, solved, SITE, positions=positions, batch_tokens=50)
    assert got["example_id"].tolist() == IDS * 2
    infeasible = (generations["status"] == "infeasible").to_numpy()
    assert infeasible.tolist() == [False, False, True, False] * 2
    assert got.loc[infeasible, ["kl_sum", "base_nll_sum"]].isna().all(axis=None)
    assert (got.loc[infeasible, "n_tokens"] == 0).all()
    for i in np.flatnonzero(~infeasible):
        row = generations.iloc[i]
        vectors = solved.vectors(solved.at(row["strength_index"], [row["example_id"]]))
        alone = divergence(
            tiny,
            [row["prompt_tokens"]],
            [row["new_tokens"]],
            site=SITE,
            vectors=vectors,
            steer_prompt=positions == "all",
        )
        assert got["kl_sum"][i] == pytest.approx(alone.kl_sum[0], rel=1e-3, abs=1e-5)
        assert got["base_nll_sum"][i] == pytest.approx(alone.base_nll_sum[0], rel=1e-4)
        assert got["n_tokens"][i] == len(row["new_tokens"]) > 0
    # The prompt beyond the margin is not steered and the others are.
    assert abs(got["kl_sum"][0]) < 1e-5 < 1e-3 < got["kl_sum"][1]
