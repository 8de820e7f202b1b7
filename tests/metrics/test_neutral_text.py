"""What steering does to neutral text, against definitions written out in float64."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from steering_core.errors import DataError, ModelError
from steering_core.generation.intervention import GatedRows, Intervention, RowVectors
from steering_core.methods.base import Direction, write_directions
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.gates import Gate
from steering_core.methods.solutions import GridPoint, write_solutions
from steering_core.metrics.neutral_text import (
    SCHEMA,
    SHORTEST,
    added_positions,
    cost_under,
    read_neutral_texts,
    text_cost,
)
from steering_core.models.residual_stream import edit_residual, read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize

SITE = Site(1, "post", False, True)
RNG = np.random.default_rng(0)
TEXTS = [" ".join(f"w{i}" for i in RNG.integers(0, 60, n)) for n in (9, 4, 12)]
VECTORS = RNG.normal(size=(3, 32))
GATE = Gate(RNG.normal(size=32), 0.05)


def log_probabilities(lm, row, vector=None):
    def edit(residual):
        steered = residual.clone()
        steered[:, 1:] += torch.tensor(vector, dtype=residual.dtype)  # BOS is at 0
        return steered

    ids = torch.tensor([row])
    with torch.no_grad():
        if vector is None:
            logits = lm.model(input_ids=ids).logits
        else:
            with edit_residual(lm, SITE, edit):
                logits = lm.model(input_ids=ids).logits
    return torch.log_softmax(logits[0].double(), dim=-1).numpy()


def test_sums_are_over_the_tokens_that_follow_a_steered_position(tiny):
    rows = tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)
    intervention = Intervention({SITE: RowVectors(VECTORS)})
    got = text_cost(tiny, rows, prepend_bos=True, intervention=intervention, batch_tokens=20)
    for i, row in enumerate(rows):
        base, steered = (log_probabilities(tiny, row, v) for v in (None, VECTORS[i]))
        places, target = np.arange(1, len(row) - 1), np.array(row[2:])
        kl = (np.exp(steered) * (steered - base)).sum(axis=1)
        assert got.n_tokens[i] == len(places)
        np.testing.assert_allclose(got.kl_sum[i], kl[places].sum(), rtol=1e-4)
        np.testing.assert_allclose(got.nll_sum[i], -steered[places, target].sum(), rtol=1e-4)
        np.testing.assert_allclose(got.base_nll_sum[i], -base[places, target].sum(), rtol=1e-4)


def test_without_an_intervention_nothing_differs(tiny):
    rows = tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)
    got = text_cost(tiny, rows, prepend_bos=True, intervention=None)
    assert (got.kl_sum == 0).all() and (got.nll_sum == got.base_nll_sum).all()
    assert (got.base_nll_sum > 0).all()


@pytest.fixture
def files(tmp_path):
    direction = Direction(VECTORS[0] / np.linalg.norm(VECTORS[0]))
    points = [GridPoint("caa_repe", i, "alpha", alpha) for i, alpha in enumerate((0.5, 2.0))]
    rows = solve_fixed(points, ["a"], direction, 3.0)
    write_solutions(rows, tmp_path / "solutions")
    write_directions(tmp_path / "directions", {"caa_repe": direction}, 3.0, 1)
    rows.assign(selected=[False, True]).to_csv(tmp_path / "pareto")
    return {name: str(tmp_path / name) for name in ("solutions", "directions", "pareto")}


def cost(lm, files, method="caa_repe", max_tokens=32):
    texts = pd.DataFrame({"example_id": list("abc"), "text": TEXTS})
    return cost_under(
        lm,
        texts,
        files,
        method,
        site=SITE,
        target_class=1,
        max_tokens=max_tokens,
        batch_tokens=64,
    )


def test_the_selected_strength_is_read_at_every_position(tiny, files):
    found = cost(tiny, files)
    rows = tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)
    vector = np.tile(6.0 * VECTORS[0] / np.linalg.norm(VECTORS[0]), (3, 1)).astype("f4")
    plan = Intervention({SITE: RowVectors(vector)})
    wanted = text_cost(tiny, rows, prepend_bos=True, intervention=plan)
    np.testing.assert_allclose(found["kl_sum"], wanted.kl_sum, rtol=1e-5)
    assert list(found) == SCHEMA.names and set(found["status"]) == {"ok"}
    plain = cost(tiny, files, "no_steering")
    assert (plain["kl_sum"] == 0).all() and (plain["nll_sum"] == found["base_nll_sum"]).all()
    assert cost(tiny, files, max_tokens=4)["n_tokens"].tolist() == [2, 2, 2]


def test_positions_at_which_something_is_added_are_counted(tiny, files):
    rows = tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)
    every = [len(row) - 1 for row in rows]  # BOS is not steered
    found = cost(tiny, files)
    assert found["n_added"].tolist() == found["n_positions"].tolist() == every
    plain = cost(tiny, files, "no_steering")
    assert plain["n_added"].tolist() == [0, 0, 0] and plain["n_positions"].tolist() == every
    some = np.where([[True], [False], [True]], VECTORS, 0.0)
    gated = GatedRows(RowVectors(VECTORS), GATE, SITE, 3)
    plans = [(RowVectors(some), [every[0], 0, every[2]]), (gated, open_at(tiny, rows))]
    for plan, wanted in plans:
        counted = added_positions(
            tiny,
            rows,
            prepend_bos=True,
            intervention=Intervention({SITE: plan}, "all"),
            batch_tokens=20,
        )
        assert counted.tolist() == wanted


def open_at(lm, rows):
    counts = []
    for row in rows:
        ids = torch.tensor([row])
        read = read_residuals(lm, [SITE], ids, torch.ones_like(ids, dtype=torch.bool))
        counts.append(int(GATE.open(read[SITE.hook_name][0, 1:].numpy()).sum()))
    assert 0 < sum(counts) < sum(map(len, rows)) - len(rows)
    return counts


def test_what_cannot_be_read_is_no_number(tiny, files):
    table = pd.read_csv(files["pareto"])
    table.assign(selected=False).to_csv(files["pareto"])
    found = cost(tiny, files)
    assert set(found["status"]) == {"undefined"} and found["kl_sum"].isna().all()
    assert set(found["reason"]) == {"no strength of caa_repe is selected"}
    table.to_csv(files["pareto"])
    write_directions(files["directions"], {"caa_repe": Direction(VECTORS[0])}, 1e30, 1)
    lost = cost(tiny, files)
    assert set(lost["status"]) == {"not_finite"} and lost["nll_sum"].isna().all()


def test_a_model_whose_own_logits_are_lost_is_refused(tiny):
    rows = tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)
    weight = tiny.model.model.norm.weight
    kept = weight.data.clone()
    try:
        weight.data.fill_(float("inf"))
        with pytest.raises(ModelError, match="NaN"):
            text_cost(tiny, rows, prepend_bos=True, intervention=None)
    finally:
        weight.data.copy_(kept)


def source(path, **more):
    return SimpleNamespace(
        **{"dataset": str(path), "revision": "main", "subset": None, "split": "train"},
        **{"text": "text", **more},
    )


def drawn(tiny, path, rows=10, seed=0, **more):
    texts, dataset = read_neutral_texts(
        source(path, **more), tiny.tokenizer, prepend_bos=True, rows=rows, seed=seed
    )
    assert dataset["id"] == str(path)
    return texts


def test_texts_are_drawn_once_each_and_headings_are_left_out(tiny, tmp_path):
    long = [" ".join(["w1"] * n) for n in range(SHORTEST - 1, SHORTEST + 5)]
    pd.DataFrame({"text": ["w1 w2", *long, *long]}).to_parquet(tmp_path / "t.parquet")
    every = drawn(tiny, tmp_path / "t.parquet", rows=50)
    assert sorted(every["text"], key=len) == long and every["example_id"].is_unique
    few = drawn(tiny, tmp_path / "t.parquet", rows=3)
    assert len(few) == 3 and few.equals(drawn(tiny, tmp_path / "t.parquet", rows=3))
    others = {tuple(drawn(tiny, tmp_path / "t.parquet", rows=3, seed=s)["text"]) for s in range(9)}
    assert len(others) > 1


def test_a_dataset_without_the_column_or_a_long_text_is_refused(tiny, tmp_path):
    pd.DataFrame({"text": ["w1 w2"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no column 'body'"):
        drawn(tiny, tmp_path / "t.parquet", text="body")
    with pytest.raises(DataError, match=f"no text of {SHORTEST} tokens"):
        drawn(tiny, tmp_path / "t.parquet")


def test_neutral_text_after_a_persona_is_compared_with_the_text_alone(tiny, tmp_path):
    personas = {"positive": "w10 w11 w12 ", "negative": "w13 "}
    pairs = [{"positive": f"w{i}", "negative": f"w{i + 1}"} for i in (20, 22)]
    texts = {"prompts": ["w1"], "contrast": pairs, "queries": ["w30", "w31"]}
    concept = {"concept": "words", "personas": personas, **texts}
    (tmp_path / "concept.yaml").write_text(yaml.safe_dump(concept))
    found = cost(tiny, {"concept": str(tmp_path / "concept.yaml")}, "prompting", max_tokens=8)
    before = tokenize(tiny.tokenizer, ["w10 w11 w12 "], prepend_bos=False)[0]
    for row, got in zip(
        tokenize(tiny.tokenizer, TEXTS, prepend_bos=True, max_tokens=8),
        found.itertuples(),
        strict=True,
    ):
        base = log_probabilities(tiny, row)[1:-1]
        after = log_probabilities(tiny, [row[0], *before, *row[1:]])[1 + len(before) : -1]
        places, target = np.arange(len(base)), np.array(row[2:])
        assert got.n_tokens == len(base)
        np.testing.assert_allclose(
            got.kl_sum, (np.exp(after) * (after - base)).sum(), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(got.nll_sum, -after[places, target].sum(), rtol=1e-4)
        np.testing.assert_allclose(got.base_nll_sum, -base[places, target].sum(), rtol=1e-4)
