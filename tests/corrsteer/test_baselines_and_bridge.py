"""Supervised fine-tuning, and the convex programs on selected features."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, TinySAE, word_rows, words_task

from steering_core.config.corrsteer import Bridge, FineTuning
from steering_core.config.schema import Model, SAESource
from steering_core.corrsteer.answers import SCHEMA, answer, write_answers
from steering_core.corrsteer.bridge import answer_bridge, solve_rows
from steering_core.corrsteer.decoding import Decoding
from steering_core.corrsteer.fine_tune import fine_tune, learning_rate, training_ids, warm_up
from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan
from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.run import Run
from steering_core.errors import DataError
from steering_core.models.language_model import load_language_model

HOW = Decoding(new_tokens=2, batch_rows=8)


def test_published_rates_and_warm_up():
    assert learning_rate(FineTuning(method="full"), 4000) == 1e-5
    assert learning_rate(FineTuning(method="full"), 1999) == 5e-6
    assert learning_rate(FineTuning(method="lora", learning_rate=1e-3), 10) == 1e-3
    assert (warm_up(4000), warm_up(1000), warm_up(3)) == (100, 30, 1)


def test_training_rows_start_with_bos_and_set_no_line_break_before_the_answer(tiny):
    rows = word_rows(3).assign(worked="w5")
    bos, end = tiny.tokenizer.bos_token_id, tiny.tokenizer.eos_token_id
    for (ids, n_prompt), prompt in zip(
        training_ids(tiny, rows, prepend_bos=True), rows["prompt"], strict=True
    ):
        assert ids[0] == bos and ids.count(bos) == 1 and ids[-1] == end
        assert tiny.tokenizer.decode(ids[1:-1]) == f"{prompt} w5"
        assert tiny.tokenizer.decode(ids[n_prompt:-1]) == "w5"
    with pytest.raises(DataError, match="tokens"):
        training_ids(tiny, rows.assign(prompt="w1 " * 70), prepend_bos=True)
    rows.loc[0, "prompt"] = "w1 " * 70
    assert len(training_ids(tiny, rows, prepend_bos=True, drop_long=True)) == 2
    with pytest.raises(DataError, match="no training row fits"):
        training_ids(tiny, rows.assign(prompt="w1 " * 70), prepend_bos=True, drop_long=True)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_teaches_the_answer_and_leaves_the_dtype(tiny_model, method):
    source = SAESource(path="unused/layer_{layer}")
    lm = load_language_model(Model(id=str(tiny_model), sae=source), "cpu")
    rows = word_rows(25).assign(worked="w5")
    settings = FineTuning(method=method, learning_rate=1e-2, epochs=3)
    trained = fine_tune(lm, rows, settings, seed=0, prepend_bos=True)
    assert np.mean(trained.losses[-10:]) < 0.5 * np.mean(trained.losses[:5])
    texts = answer(trained.lm, word_rows(8, 9), words_task(), HOW, None)["text"]
    assert (texts.str.split().str[0] == "w5").mean() > 0.5
    assert trained.lm.dtype == torch.float32 and trained.lm.blocks is not None
    assert not any(p.requires_grad for p in trained.lm.model.parameters())


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 12))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    success = rng.random(200) < 0.5
    h = rng.standard_normal((200, 12)) + np.where(success, 1.0, -1.0)[:, None] * rows[3]
    return rows, h, success


@pytest.mark.parametrize("program", ["qp_optimal", "convex_optimal"])
def test_program_moves_every_solved_row_past_the_margin_of_the_probe(world, program):
    from steering_core.probes.fit import fit_probe

    rows, h, success = world
    bridge = Bridge(tau=1.0, epsilon=20.0)
    found = solve_rows(
        program, bridge, rows, h[:150], success[:150], h[150:], seed=0, centred=False
    )
    probe = fit_probe(h[:150], success[:150], seed=0)
    assert found.solved.all()
    assert (probe.decision(h[150:] + found.vectors) >= 1.0 - 1e-6).all()
    already = np.array(found.status) == "already_satisfied"
    assert already.any() and np.allclose(found.vectors[already], 0.0)


def plan_for(lm, sae):
    features = pd.DataFrame({c: np.zeros(10) for c in FEATURE_COLUMNS}).astype(FEATURE_COLUMNS)
    features = features.assign(layer=1, rank=range(10), feature=range(10), score=1.0)
    return Plan(features, {1: sae.decoder[0]}, {1: SITE}, {})


def run_of(lm):
    return Run(lm, words_task(2), HOW, None, False, {1: SITE})


def bridged(lm, epsilon, success=None, test=None):
    sae = TinySAE(lm.shape.d_model, 40)
    train = word_rows(40)
    base = answer(lm, train, words_task(2), HOW, None)
    train["success"] = base["success"].to_numpy() if success is None else success
    return answer_bridge(
        run_of(lm),
        "convex_optimal",
        Bridge(tau=1.0, epsilon=epsilon, features=10),
        plan_for(lm, sae),
        lambda layer, features: sae.decoder[features],
        train,
        word_rows(12, 5) if test is None else test,
        seed=0,
    )


def test_programs_answer_the_task_and_stand_in_the_table(tiny, tmp_path):
    table = bridged(tiny, epsilon=1e4)
    write_answers(tmp_path / "bridge.parquet", table)
    table = pd.read_parquet(tmp_path / "bridge.parquet")
    assert table.columns.tolist() == SCHEMA.names and (table["status"] == "ok").any()
    base = answer(tiny, word_rows(12, 5), words_task(2), HOW, None)
    runs = {0: {"unsteered": base, "convex_optimal": table}}
    row = result_table("e", runs, n_resamples=50).query("method == 'convex_optimal'").iloc[0]
    assert row["n"] + row["n_missing"] == 12 and row["negative"] + row["positive"] >= 0


def test_rows_without_a_solution_are_left_out_and_counted_never_scored(tiny):
    table = bridged(tiny, epsilon=1e-6)
    gone = table["status"] == "undefined"
    reasons = table.loc[gone, "reason"]
    assert gone.any() and reasons.str.startswith("program: infeasible").all()
    assert reasons.str.endswith("the probe of success is no better than chance").all()
    assert table.loc[gone, "success"].isna().all()
    base = answer(tiny, word_rows(12, 5), words_task(2), HOW, None)
    runs = {0: {"unsteered": base, "convex_optimal": table}}
    row = result_table("e", runs, n_resamples=50).query("method == 'convex_optimal'").iloc[0]
    if gone.all():
        assert row["status"] == "undefined" and pd.isna(row["accuracy"])
    else:
        assert row["n_missing"] == gone.sum() and "infeasible" in row["reason"]


def test_a_task_with_one_outcome_has_no_probe(tiny):
    table = bridged(tiny, epsilon=5.0, success=True)
    assert set(table["status"]) == {"undefined"}
    assert table["reason"].str.startswith("no probe of success").all()


def test_plan_without_features_is_undefined(tiny):
    empty = replace(plan_for(tiny, TinySAE(32, 4)), vectors={}, undefined={1: "never fires"})
    table = answer_bridge(
        run_of(tiny), "qp_optimal", Bridge(), empty, None, word_rows(3), word_rows(2), seed=0
    )
    assert set(table["reason"]) == {"never fires"}
