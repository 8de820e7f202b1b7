"""Answers whose logits are NaN or infinite are lost: recorded, no success, chosen by nothing."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, TinySAE, session_of, word_rows, words_task

from steering_core.corrsteer.answers import Decoding, Session, answer, write_answers
from steering_core.corrsteer.kept_answers import answer_choice, validate_layers
from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan
from steering_core.corrsteer.report import Summary, paired
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.selection import make_readers, select
from steering_core.corrsteer.sparse_methods import _tried
from steering_core.errors import ModelError
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.generation.new_inputs import SteeredInputs, Strength
from steering_core.training.fine_tuning import train

HOW = Decoding(new_tokens=4, batch_rows=8, prepend_bos=True)
ROWS = word_rows(12)
TASK = words_task()


def half(lm):
    return replace(lm, model=copy.deepcopy(lm.model).to(torch.float16))


@pytest.fixture(scope="module")
def run(tiny):
    return Session(half(tiny), TASK, HOW, None, reasoned=False, sites={1: SITE})


@pytest.fixture(scope="module")
def damaged(tiny):
    lm = half(tiny)
    lm.model.get_parameter("model.layers.1.mlp.down_proj.weight").fill_(float("nan"))
    return lm


@pytest.fixture(scope="module")
def unsteered(run):
    return answer(run.lm, ROWS, TASK, HOW, None)


def too_long(n_lost):
    """A vector for each row; those of the first rows overflow float16."""
    vectors = np.zeros((len(ROWS), 32), dtype=np.float32)
    vectors[:n_lost, :2] = 1e6
    return vectors


def lost(n_lost):
    return Intervention({SITE: RowVectors(too_long(n_lost))})


def steered(run, n_lost):
    return answer(run.lm, ROWS, TASK, HOW, None, intervention=lost(n_lost))


def test_lost_answers_are_recorded_with_layer_and_dtype(run, unsteered, tmp_path):
    found = steered(run, 5)
    assert found["status"].tolist() == ["not_finite"] * 5 + ["ok"] * 7
    assert found["reason"].tolist() == [
        *["logits NaN or infinite at layers 1 in float16"] * 5, *[""] * 7
    ]  # fmt: skip
    assert found.loc[:4, ["text", "answer", "success"]].isna().all(axis=None)
    same = ["text", "answer", "success"]
    assert found.loc[5:, same].to_numpy().tolist() == unsteered.loc[5:, same].to_numpy().tolist()
    write_answers(tmp_path / "a.parquet", found)
    read = pd.read_parquet(tmp_path / "a.parquet")
    assert read["success"].isna().tolist() == [True] * 5 + [False] * 7


def test_no_lost_answer_counts_in_a_row_of_the_table(run, unsteered):
    whole = Summary({0: paired(unsteered, steered(run, 0))}, n_resamples=100, seed=0)
    assert whole.row(changes=True)["n_missing"] == 0
    row = Summary({0: paired(unsteered, steered(run, 5))}, n_resamples=100, seed=0).row(
        changes=True
    )
    assert (row["n"], row["n_missing"], row["status"]) == (7, 5, "ok")
    assert row["reason"].startswith("5 x logits NaN or infinite at layers 1 in float16")
    before = unsteered["success"].astype(bool)
    assert row["accuracy"] == row["baseline_accuracy"] == pytest.approx(before[5:].mean())
    assert "5 of 12 answers are lost" in row["warnings"]
    # Lost answers are no success there either, whatever the unsteered ones were.
    assert row["accuracy_all"] == pytest.approx(before[5:].sum() / len(before))
    none = Summary({0: paired(unsteered, steered(run, 12))}, n_resamples=100, seed=0).row(
        changes=True
    )
    assert none["status"] == "undefined" and "float16" in none["reason"]
    assert "accuracy" not in none


def plan():
    features = pd.DataFrame(columns=FEATURE_COLUMNS)
    return Plan(features, {1: too_long(1)[0]}, {1: SITE}, {})


def test_a_layer_that_overflows_alone_has_no_accuracy_to_be_kept_for(run, unsteered):
    class Overflowing(Plan):
        """A plan whose layer overflows for the first five rows."""

        def intervention(self, layers):
            return lost(5)

    table = validate_layers(run, ROWS, Overflowing(**vars(plan())))
    accuracy = table.set_index("layer")["accuracy"]
    assert accuracy[-1] == pytest.approx(unsteered["success"].astype(bool).mean())
    assert accuracy[1] == pytest.approx(unsteered["success"].astype(bool)[5:].sum() / 12)


def test_a_strength_that_overflows_is_not_chosen_for_unsteered_answers(run, unsteered):
    def strength(name, n_lost, reasons):
        return Strength(name, lambda seen: SteeredInputs(lost(n_lost), None, reasons, ""))

    unsolved = ["program: infeasible"] * 5 + [""] * 7
    grid = [strength("unsolved", 0, unsolved), strength("lost", 5, [""] * 12)]
    table = _tried(run, ROWS, np.zeros((12, 32)), grid).set_index("strength")
    success = unsteered["success"].astype(bool)
    assert table["n_missing"].tolist() == [0, 5, 5]
    assert table["accuracy"].tolist() == pytest.approx(
        [success.mean(), success.mean(), success[5:].sum() / 12]
    )
    assert success[:5].any()


def test_the_unsteered_model_must_not_overflow(damaged):
    message = "without any steering, in float16"
    with pytest.raises(ModelError, match=message):
        answer_choice(
            Session(damaged, TASK, HOW, None, reasoned=False, sites={1: SITE}), ROWS, None, None
        )
    readers = make_readers({1: TinySAE(32, 40)}, {1: SITE}, [PooledStatistic()], 32)
    with pytest.raises(ModelError, match=message):
        select(session_of(damaged, HOW, TASK), ROWS, readers, [PooledStatistic()])


def test_fine_tuning_that_diverges_stops(tiny):
    model = copy.deepcopy(tiny.model).float().requires_grad_(True)
    with pytest.raises(ModelError, match=r"fine-tuning is nan at step 2 of 3.*learning_rate"):
        train(model, [([1, 5, 6, 2], 2)] * 3, 1e30, 0.0, tiny.device)
