"""The methods of a job share one model, and the table of each is kept while it is valid."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steering_core.generation import by_method
from steering_core.generation.by_method import (
    SteeredMethods,
    rows_of,
    selected_strength,
    steering_digests,
)
from steering_core.generation.sampling import Sampling
from steering_core.generation.table import SCHEMA, generate_method
from steering_core.methods.base import Direction, read_direction, write_directions
from steering_core.methods.fixed_solutions import solve_directions
from steering_core.methods.solutions import write_solutions

PROMPTS = pd.DataFrame(
    {"example_id": ["a", "b", "c"], "split": "prompt", "text": ["w1 w2", "w3", "w4 w5 w6"]}
)
LAYER = {"layer": 1, "stream": "post", "centred": False, "prepend_bos": True}
METHODS = ["caa_mean_diff", "topk_features"]
SETTINGS = {"device": "cpu", "positions": "last"}


def files_of(folder, seed=0, k=2, strengths=(2.0,)):
    """The files of two directions; of the second, ``k`` features are steered."""
    folder.mkdir(exist_ok=True)
    vectors = np.random.default_rng(seed).standard_normal((2, 32))
    features, coefficients = np.arange(k), np.ones(k)
    write_directions(
        folder / "directions",
        {
            METHODS[0]: Direction(vectors[0]),
            METHODS[1]: Direction(vectors[1] * k, features, coefficients),
        },
        3.0,
        1,
    )
    rows = solve_directions(
        SimpleNamespace(methods=METHODS, strengths=[*strengths]),
        PROMPTS,
        lambda method: read_direction(folder / "directions", method),
    )
    write_solutions(rows, folder / "solutions")
    files = {name: str(folder / name) for name in ("directions", "solutions")}
    return dict.fromkeys(METHODS, files)


def digests(files):
    return {method: steering_digests(method, own) for method, own in files.items()}


def test_a_method_is_known_by_its_own_rows_and_direction(tmp_path):
    before = digests(files_of(tmp_path / "a"))
    assert digests(files_of(tmp_path / "b")) == before
    topk = digests(files_of(tmp_path / "c", k=3))
    assert [method for method in METHODS if topk[method] != before[method]] == ["topk_features"]
    assert all(digests(files_of(tmp_path / "d", seed=1))[m] != before[m] for m in METHODS)
    assert all(digests(files_of(tmp_path / "e", strengths=[3.0]))[m] != before[m] for m in METHODS)
    other = tmp_path / "probe"
    other.write_text("1")
    one = {**files_of(tmp_path / "a")[METHODS[0]], "probe": str(other)}
    assert steering_digests(METHODS[0], one).keys() == {*before[METHODS[0]], "probe"}


@pytest.fixture
def loads(monkeypatch, tiny):
    """How often the model was loaded."""
    found = []
    monkeypatch.setattr(by_method, "fetched_model", lambda *given: found.append(given) or tiny)
    return found


def job(files, **changed):
    params = {"code": "c", "model": {}, "target_class": 1, "settings": SETTINGS, "methods": files}
    return SteeredMethods(SimpleNamespace(**{**params, **changed}), {"model": {"id": "m"}}, LAYER)


def tables(methods, folder, make=None, prompts="p"):
    """The texts of a job, and the methods whose texts were made."""
    made = []

    def generate(method):
        made.append(method)
        if make is not None:
            make(method)
        steered, sampling = methods.steered(method), Sampling(3, None, 1.0, 0)
        return generate_method(methods.lm, PROMPTS, steered, sampling, max_tokens=20, batch_size=3)

    return methods.tables(folder, generate, lambda method: {"prompts": prompts}, SCHEMA), made


def test_the_model_is_loaded_once_and_only_what_is_missing_is_made(tmp_path, loads):
    files = files_of(tmp_path / "a")
    whole, made = tables(job(files), tmp_path / "texts")
    assert made == METHODS and len(loads) == 1
    assert (
        whole.schema.equals(SCHEMA)
        and whole["method"].to_pylist() == np.repeat(METHODS, 3).tolist()
    )
    again, made = tables(job(files), tmp_path / "texts")
    assert made == [] and len(loads) == 1 and again.equals(whole)
    alone, _ = tables(job({METHODS[1]: files[METHODS[1]]}), tmp_path / "other")
    assert alone.equals(whole.slice(3))
    _, made = tables(job(files_of(tmp_path / "b", k=3)), tmp_path / "texts")
    assert made == ["topk_features"]
    for changed in (
        {"code": "d"},
        {"settings": {**SETTINGS, "positions": "all"}},
        {"target_class": 0},
    ):
        assert tables(job(files, **changed), tmp_path / "texts")[1] == METHODS
    assert tables(job(files), tmp_path / "texts", prompts="q")[1] == METHODS


def test_a_killed_job_loses_one_method(tmp_path, loads):
    files = files_of(tmp_path / "a")

    def killed(method):
        if method == METHODS[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables(job(files), tmp_path / "texts", killed)
    whole, made = tables(job(files), tmp_path / "texts")
    assert made == METHODS[1:]
    assert whole.equals(tables(job(files), tmp_path / "new")[0])
    assert rows_of(METHODS[0], tmp_path / "texts" / f"{METHODS[0]}.parquet").num_rows == 3


def test_a_table_at_the_selected_strength_is_known_by_that_strength():
    row = {"strength_name": "alpha", "tau": np.nan, "lam": np.nan, "epsilon": np.nan}
    pareto = pd.DataFrame(
        [
            {"method": "a", "strength": 1.0, "selected": False, **row},
            {"method": "a", "strength": 2.0, "selected": True, **row},
            {"method": "b", "strength": 3.0, "selected": True, **row},
            {"method": "c", "strength": 3.0, "selected": None, **row},
        ]
    )
    assert selected_strength("a", pareto) == ["alpha", "2.0", "nan", "nan", "nan"]
    assert selected_strength("b", pareto) != selected_strength("a", pareto)
    assert selected_strength("c", pareto) == []
