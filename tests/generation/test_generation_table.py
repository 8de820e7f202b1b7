"""The table of texts: infeasible prompts have none."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from steered_generation import generate, generate_method

from steering_core.generation.sampling import Sampling
from steering_core.generation.table import SCHEMA
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.parquet import write_parquet

SITE = Site(2, "pre", False, True)
SAMPLING = Sampling(new_tokens=5, temperature=1.0, top_p=0.9, seed=0)
IDS = [f"p{i}" for i in range(5)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """SOCP solutions of five prompts: the first is fulfilled already, the last infeasible."""
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(60, 32)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.normal(size=32)
    probe = LinearProbe(weight, 0.0, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)
    path = SteeringPath.fit(decoder, weight)
    # Logits w·h of -1, -2 …; the first is beyond the margin, the last too far for the budget.
    residuals = np.outer([5.0, -1.0, -2.0, -3.0, -1e4], weight / (weight @ weight))
    points = [
        GridPoint("convex_optimal", i, "epsilon", epsilon, 0.5, None, epsilon)
        for i, epsilon in enumerate((3.0, 6.0))
    ]
    rows = solve_programs(points, IDS, residuals, probe, path)
    return SolutionVectors(rows, tmp_path_factory.mktemp("d") / "directions.safetensors", path)


@pytest.fixture(scope="module")
def prompts():
    return pd.DataFrame({"example_id": IDS, "text": ["w1 w2", "w3", "w4 w5 w6", "w7 w8", "w9"]})


@pytest.fixture(scope="module")
def made(tiny, programs, prompts):
    return generate_method(
        tiny, prompts, programs, SITE, SAMPLING, positions="last", max_tokens=20, batch_size=2
    )


def test_statuses_of_the_fixture(made):
    statuses = made[made["strength_index"] == 0]["status"].tolist()
    assert statuses == ["already_satisfied", "optimal", "optimal", "optimal", "infeasible"]


def test_infeasible_prompts_have_no_text(made):
    none = made["status"] == "infeasible"
    assert none.sum() == 2
    assert made.loc[none, ["text", "new_tokens"]].isna().all(axis=None)
    assert made.loc[~none, ["text", "new_tokens"]].notna().all(axis=None)


def test_texts_are_those_of_direct_generation(tiny, made, programs, prompts):
    tokens = tokenize(tiny.tokenizer, prompts["text"].tolist(), prepend_bos=True)
    for index in programs.points():
        rows = programs.at(index, IDS[:4])
        expected = generate(
            tiny, tokens[:4], IDS[:4], SAMPLING, site=SITE, vectors=programs.vectors(rows)
        )
        got = made[(made["strength_index"] == index) & made["text"].notna()]
        assert got["new_tokens"].tolist() == expected
        assert got["prompt_tokens"].tolist() == tokens[:4]
        assert got["text"].tolist() == [
            tiny.tokenizer.decode(new, skip_special_tokens=True) for new in expected
        ]
    # The prompt beyond the margin is left alone.
    base = generate(tiny, tokens[:1], IDS[:1], SAMPLING, site=SITE)
    assert made["new_tokens"][0] == base[0]


def test_written_table_keeps_missing_texts_missing(made, tmp_path):
    write_parquet(tmp_path / "g.parquet", made, SCHEMA)
    table = pq.read_table(tmp_path / "g.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["text"].null_count == table["new_tokens"].null_count == 2
    assert pd.read_parquet(tmp_path / "g.parquet")["new_tokens"].isna().sum() == 2
