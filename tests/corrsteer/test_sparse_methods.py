"""The methods of optimal sparse steering on CorrSteer's tasks."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import yaml
from corrsteer_world import (
    CAUSE,
    SITE,
    TinySAE,
    session_of,
    training_data_of_one_cause,
    word_rows,
    words_task,
)

from steering_core.config.corrsteer_schema import SparseMethods
from steering_core.config.methods import CORRSTEER_METHODS, is_program, mode_of
from steering_core.corrsteer.answers import SCHEMA, Decoding, Session, answer, write_answers
from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan
from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.sparse_methods import (
    NO_STEERING,
    answer_sparse_method,
    answers_under,
    check_same_model,
    strengths,
)
from steering_core.corrsteer.training_data import fitting
from steering_core.errors import DataError, ModelError
from steering_core.methods.base import Direction, write_directions
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.solutions import GridPoint, write_solutions
from steering_core.metrics.judges import Judge, Verdict
from steering_core.probes.fit import calibrated, fit_probe
from steering_core.tables.columns import validate_table

HOW = Decoding(new_tokens=2, batch_rows=8)
PROGRAMS = ["qp_optimal", "convex_optimal"]
FIXED = [method for method in CORRSTEER_METHODS if not is_program(method)]


@pytest.fixture(scope="module")
def data():
    return training_data_of_one_cause()


def vectors_of(steered):
    """What is added to each row."""
    (what,) = steered.intervention.at.values()
    return np.broadcast_to(what.vectors, (len(steered.reason), 12))


@pytest.mark.parametrize("method", PROGRAMS)
def test_a_program_moves_every_solved_row_past_the_margin_of_the_probe(data, method):
    test = np.random.default_rng(1).standard_normal((50, 12))
    probe = fit_probe(data.residuals, data.success, seed=0)
    grid = strengths(method, SparseMethods(tau=[0.5, 1.0], epsilon=[20.0]), data)
    for strength, tau in zip(grid, (0.5, 1.0), strict=True):
        added = strength.steer(test)
        assert added.reason == [""] * 50 and f"tau {tau:g}" in strength.name
        assert (probe.decision(test + vectors_of(added)) >= tau - 1e-6).all()
        already = probe.decision(test) >= tau
        assert already.any() and np.allclose(vectors_of(added)[already], 0.0)
        assert (added.n_features[already] == 0).all() and (added.n_features[~already] > 0).all()


@pytest.mark.parametrize("direction", ["mean_difference", "contrastive", "repe"])
@pytest.mark.parametrize("method", PROGRAMS)
def test_a_margin_may_be_on_another_direction_than_the_probe(data, method, direction):
    settings = SparseMethods(tau=[1.0], epsilon=[20.0], concept_direction=direction)
    [strength] = strengths(method, settings, data)
    same = {"mean_difference": "mean_diff"}.get(direction, direction)
    [fixed] = strengths(f"caa_{same}", SparseMethods(strengths=[1.0]), data)
    [vector] = vectors_of(fixed.steer(np.zeros((1, 12))))
    weight, bias = calibrated(vector / np.linalg.norm(vector), data.residuals, data.success)
    test = np.random.default_rng(1).standard_normal((20, 12))
    added = vectors_of(strength.steer(test))
    logits, moved = test @ weight + bias, added @ weight
    np.testing.assert_allclose(moved, np.maximum(1.0 - logits, 0.0), atol=1e-6)
    [published] = strengths(method, SparseMethods(tau=[1.0], epsilon=[20.0]), data)
    assert not np.allclose(added, vectors_of(published.steer(test)))


def test_a_margin_on_another_direction_needs_both_outcomes_too(data):
    always = replace(data, success=np.ones_like(data.success))
    for direction in ("mean_difference", "repe"):
        with pytest.raises(DataError, match="one outcome only"):
            strengths("qp_optimal", SparseMethods(concept_direction=direction), always)


@pytest.mark.parametrize("method", ["qp_shared", "socp_shared"])
def test_a_shared_vector_brings_the_worst_validation_row_to_the_margin(data, method):
    probe = fit_probe(data.residuals, data.success, seed=0)
    [strength] = strengths(method, SparseMethods(tau=[1.0], epsilon=[20.0]), data)
    added = strength.steer(np.random.default_rng(1).standard_normal((5, 12)))
    assert (vectors_of(added) == vectors_of(added)[0]).all() and added.reason == [""] * 5
    reached = probe.decision(data.shared_by + vectors_of(added)[0])
    assert reached.min() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", [*PROGRAMS, "qp_adaptive"])
def test_units_of_the_model_multiply_typical_logits_and_norms(data, method):
    settings = SparseMethods(tau=[1.0], epsilon=[2.0], qp_lambda=3.0, units="model")
    [strength] = strengths(method, settings, data)
    parameter = "epsilon 2" if method == "convex_optimal" else "lambda 3"
    assert strength.name == f"tau 1, {parameter} in units of the model"

    probe = fit_probe(data.residuals, data.success, seed=0)
    tau = np.median(np.abs(probe.decision(data.shared_by)))
    norm = np.median(np.linalg.norm(data.residuals, axis=1))
    absolute = SparseMethods(tau=[tau], epsilon=[2.0 * norm], qp_lambda=3.0 / norm)
    [same] = strengths(method, absolute, data)
    test = np.random.default_rng(1).standard_normal((20, 12))
    added, expected = strength.steer(test), same.steer(test)
    if method == "qp_adaptive":
        (plan,), (wanted,) = added.intervention.at.values(), expected.intervention.at.values()
        np.testing.assert_allclose(plan.tau, wanted.tau)
        np.testing.assert_allclose(plan.parameter, wanted.parameter)
    else:
        assert added.reason == [""] * 20
        np.testing.assert_allclose(vectors_of(added), vectors_of(expected), atol=1e-9)


def test_residuals_without_a_size_are_no_unit(data):
    mostly_zero = replace(data, residuals=data.residuals * (np.arange(150) < 60)[:, None])
    strengths("qp_optimal", SparseMethods(), mostly_zero)
    with pytest.raises(DataError, match="units: half of the training residuals are 0"):
        strengths("qp_optimal", SparseMethods(units="model"), mostly_zero)


@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_direction_has_the_norm_of_its_strength(data, method):
    grid = strengths(method, SparseMethods(strengths=[0.25, 1.0], topk=7), data)
    assert [strength.name for strength in grid] == ["alpha 0.25", "alpha 1"]
    unit = np.linalg.norm(data.residuals, axis=1).mean()
    for strength, alpha in zip(grid, (0.25, 1.0), strict=True):
        added = strength.steer(np.zeros((5, 12)))
        np.testing.assert_allclose(np.linalg.norm(vectors_of(added), axis=1), alpha * unit)
        through = {"single_feature": 1, "topk_features": 7}.get(method)
        assert added.n_features is None if through is None else (added.n_features == through).all()


@pytest.mark.parametrize("method", [m for m in FIXED if m != "random_direction"])
def test_a_fixed_direction_points_to_success(data, method):
    (vector,) = vectors_of(strengths(method, SparseMethods(), data)[0].steer(np.zeros((1, 12))))
    assert vector @ data.dictionary[CAUSE] > 0.5 * np.linalg.norm(vector)


def test_what_cannot_be_learned_is_an_error_with_the_cause(data):
    always = replace(data, success=np.ones_like(data.success))
    with pytest.raises(DataError, match="one outcome only"):
        strengths("caa_mean_diff", SparseMethods(), always)
    with pytest.raises(DataError):
        strengths("qp_optimal", SparseMethods(), always)
    alike = replace(data, contrast=lambda: (np.zeros((0, 12)), np.zeros((0, 12))))
    with pytest.raises(DataError, match="no wrong answer"):
        strengths("caa_contrastive", SparseMethods(), alike)
    with pytest.raises(DataError, match="no direction"):
        strengths("single_feature", SparseMethods(), replace(data, correlation=np.full(30, np.nan)))
    with pytest.raises(ValueError, match="method: there is no 'caa'"):
        strengths("caa", SparseMethods(), data)


def plan_for(lm, sae):
    features = pd.DataFrame({c: np.zeros(10) for c in FEATURE_COLUMNS}).astype(FEATURE_COLUMNS)
    features = features.assign(layer=1, rank=range(10), feature=range(10), score=1.0)
    features["correlation"] = np.linspace(0.9, 0.1, 10)
    return Plan(features, {1: sae.decoder[0]}, {1: SITE}, {})


@dataclass(frozen=True)
class SaysOtherwise(Judge):
    """Succeeds where the answer is none that the unsteered model gives, or where it is one."""

    unsteered: frozenset[str]
    otherwise: bool = True

    def _judge(self, texts, golds, letters, classifier=None, *, reasoned=False) -> Verdict:
        changed = [text not in self.unsteered for text in texts]
        return Verdict(list(texts), np.array(changed) == self.otherwise)


def changed_task(lm, *, otherwise=True):
    """A task that steering can only help, or can only harm."""
    rows = pd.concat([word_rows(10, 4, "validation"), word_rows(12, 5)], ignore_index=True)
    texts = answer(lm, rows, words_task(2), HOW, None)["text"]
    return replace(words_task(2), success=SaysOtherwise(frozenset(texts), otherwise))


def run_of(lm, task=None):
    return Session(lm, task or words_task(2), HOW, None, False, {1: SITE})


def sparse_answers_of(
    lm, method="convex_optimal", *, success=None, worked=("w0", "w1"), task=None, **settings
):
    sae = TinySAE(lm.shape.d_model, 40)
    train = word_rows(40)
    train["worked"] = [worked[i % len(worked)] for i in range(40)]
    base = answer(lm, train, words_task(2), HOW, None)
    train["success"] = base["success"].to_numpy() if success is None else success
    return answer_sparse_method(
        run_of(lm, task or changed_task(lm)),
        method,
        SparseMethods(features=10, **settings),
        plan_for(lm, sae),
        lambda layer, features: sae.decoder[features],
        train,
        word_rows(10, 4, "validation"),
        word_rows(12, 5),
        seed=0,
    )


@pytest.mark.parametrize("method", CORRSTEER_METHODS)
def test_every_method_answers_the_task_and_stands_in_the_table(tiny, tmp_path, method):
    found = sparse_answers_of(tiny, method, tau=[4.0], epsilon=[1e4], strengths=[0.5, 2.0])
    write_answers(tmp_path / "answers.parquet", found.answers)
    table = pd.read_parquet(tmp_path / "answers.parquet")
    assert table.columns.tolist() == SCHEMA.names and (table["status"] == "ok").any()
    base = answer(tiny, word_rows(12, 5), words_task(2), HOW, None, n_features=0)
    row = result_table("e", {0: {"unsteered": base, method: table}}, n_resamples=50).iloc[-1]
    assert row["n"] + row["n_missing"] == 12 and row["negative"] + row["positive"] >= 0
    assert row["layers"] == "1"
    if is_program(method) and mode_of(method) == "adaptive":  # another vector at every position
        assert pd.isna(row["norm_mean"]) and pd.isna(row["l0_mean"])
        return
    assert row["norm_mean"] > 0
    assert row["strength"] in found.validation["strength"].tolist()
    raw = method in ("random_direction", "caa_mean_diff", "caa_contrastive", "caa_repe")
    assert pd.isna(row["l0_mean"]) if raw else row["l0_mean"] > 0


def test_the_weakest_of_the_best_strengths_on_validation_answers_the_test_rows(tiny):
    found = sparse_answers_of(tiny, "random_direction", strengths=[4.0, 0.01, 0.5, 4.0])
    table = found.validation
    validate_table(table, "validation/{method}")
    assert (table["n"] == 10).all() and (table["n_missing"] == 0).all()
    assert table["strength"].tolist() == [
        NO_STEERING, "alpha 4", "alpha 0.01", "alpha 0.5", "alpha 4"
    ]  # fmt: skip
    best = table["accuracy"].to_numpy().argmax()
    assert table["chosen"].tolist() == [i == best for i in range(5)]
    assert best > 0 and set(found.answers["strength"]) == {table["strength"][best]}
    # Equal strengths do the same, and the first of them is taken.
    assert table["accuracy"][1] == table["accuracy"][4] and not table["chosen"][4]


@pytest.mark.parametrize("method", ["random_direction", "qp_optimal", "socp_adaptive"])
def test_a_method_that_does_not_beat_no_steering_has_no_strength(tiny, method):
    """Every strength is worse: the least bad one is no result of the method."""
    task = changed_task(tiny, otherwise=False)
    given = {"strengths": [2.0, 8.0], "tau": [4.0], "epsilon": [1e4]}
    found = sparse_answers_of(tiny, method, task=task, **given)
    table = found.validation
    assert table["accuracy"].iloc[0] == 1.0 and (table["accuracy"].iloc[1:] < 1.0).any()
    assert table["chosen"].tolist() == [True] + [False] * (len(table) - 1)
    assert set(found.answers["status"]) == {"undefined"}
    assert found.answers[["text", "answer", "success", "norm"]].isna().all(axis=None)
    (reason,) = set(found.answers["reason"])
    assert reason.startswith("nothing helped on validation") and "(1.000)" in reason
    base = answer(tiny, word_rows(12, 5), task, HOW, None, n_features=0)
    runs = {0: {"unsteered": base, method: found.answers}}
    row = result_table("e", runs, n_resamples=20).iloc[-1]
    assert row["status"] == "undefined" and row["reason"] == reason
    assert pd.isna(row["accuracy"]) and row["strength"] == ""
    assert row["baseline_accuracy"] == pytest.approx(base["success"].mean()) and row["n"] == 0


def test_a_strength_that_changes_nothing_does_not_win(tiny):
    """Ties go to no steering: nothing is gained by touching more."""
    found = sparse_answers_of(tiny, "random_direction", strengths=[1e-9])
    assert found.validation["accuracy"].nunique() == 1
    assert found.validation["chosen"].tolist() == [True, False]
    assert set(found.answers["status"]) == {"undefined"}


def test_rows_without_a_solution_are_left_out_and_counted_never_scored(tiny):
    found = sparse_answers_of(tiny, tau=[1.0], epsilon=[160.0])
    table = found.answers
    gone = table["status"] == "undefined"
    assert 0 < gone.sum() < 12
    reasons = table.loc[gone, "reason"]
    assert reasons.str.startswith("program: infeasible").all()
    assert reasons.str.endswith("the probe of success is no better than chance").all()
    assert table.loc[gone, ["success", "norm", "n_features"]].isna().all(axis=None)
    base = answer(tiny, word_rows(12, 5), words_task(2), HOW, None)
    runs = {0: {"unsteered": base, "convex_optimal": table}}
    row = result_table("e", runs, n_resamples=50).query("method == 'convex_optimal'").iloc[0]
    assert row["n_missing"] == gone.sum() and "infeasible" in row["reason"]


def test_a_program_without_a_solution_helps_nothing_and_says_so(tiny):
    (reason,) = set(sparse_answers_of(tiny, tau=[1.0], epsilon=[1e-6]).answers["reason"])
    assert reason.endswith("has 0.000, without a solution for 10 of 10 rows")


def test_rows_without_a_solution_keep_their_answer_in_the_choice_of_a_strength(tiny):
    table = sparse_answers_of(tiny, tau=[1.0], epsilon=[1e-6, 1e4], task=words_task(2)).validation
    rows = word_rows(10, 4, "validation")
    base = answer(tiny, rows, words_task(2), HOW, None)["success"].mean()
    assert table["n_missing"].tolist()[0] == 0 and table["n_missing"].iloc[1] > 0
    assert table["n_missing"].iloc[2] == 0
    # As good as none can be moved by so little.
    assert table["accuracy"].iloc[0] == table["accuracy"].iloc[1] == pytest.approx(base)


@pytest.mark.parametrize("program", ["qp", "socp"])
def test_an_adaptive_program_holds_the_margin_at_every_position(tiny, program):
    """What is added at the first position is what the static program adds there."""
    static = {"qp": "qp_optimal", "socp": "convex_optimal"}[program]
    settings = {"tau": [1.0], "epsilon": [1e4]}
    fixed = sparse_answers_of(tiny, static, **settings).answers
    moving = sparse_answers_of(tiny, f"{program}_adaptive", **settings).answers
    assert (moving["status"] == "ok").all() and fixed["strength"].equals(moving["strength"])
    first = [[text.split()[:1] for text in table["text"]] for table in (fixed, moving)]
    assert first[0] == first[1]
    unsteered = answer(tiny, word_rows(12, 5), words_task(2), HOW, None)["text"]
    assert (moving["text"] != unsteered).any()


def test_positions_without_a_solution_are_told(tiny):
    found = sparse_answers_of(tiny, "socp_adaptive", tau=[1.0], epsilon=[120.0]).answers
    ok = found[found["status"] == "ok"]
    told = ok["reason"].str.contains("left alone")
    assert told.any() and found.loc[found["status"] != "ok", "success"].isna().all()


@pytest.mark.parametrize("method", ["qp_optimal", "caa_mean_diff"])
def test_a_task_with_one_outcome_is_undefined(tiny, method):
    found = sparse_answers_of(tiny, method, success=True)
    assert set(found.answers["status"]) == {"undefined"} and found.validation.empty
    assert found.answers["reason"].str.startswith(f"{method}: ").all()


def test_a_task_without_wrong_answers_has_no_contrastive_direction(tiny):
    found = sparse_answers_of(tiny, "caa_contrastive", worked=("w0",))
    assert found.answers["reason"].str.contains("no wrong answer").all()


def test_a_plan_without_features_is_undefined(tiny):
    empty = replace(plan_for(tiny, TinySAE(32, 4)), vectors={}, undefined={1: "never fires"})
    rows = word_rows(2)
    found = answer_sparse_method(
        run_of(tiny), "qp_optimal", SparseMethods(), empty, None, rows, rows, rows, seed=0
    )
    assert set(found.answers["reason"]) == {"never fires"}


def test_pairs_that_do_not_fit_the_context_are_left_out_together(tiny):
    long = "w1 " * 70
    assert fitting(run_of(tiny), ["w1", "w2", long], ["w1", long, "w3"], SITE) == (["w1"], ["w1"])
    assert fitting(run_of(tiny), [], [], SITE) == ([], [])
    with pytest.raises(DataError, match="fits the model's context"):
        fitting(run_of(tiny), [long], ["w1"], SITE)


# ------------------------------------------------------------ methods that an experiment has fitted
ROWS = word_rows(3)


@pytest.fixture
def files(tmp_path):
    vector = np.random.default_rng(0).standard_normal(32)
    direction = Direction(vector / np.linalg.norm(vector))
    points = [GridPoint("caa_repe", i, "alpha", alpha) for i, alpha in enumerate((0.5, 4.0))]
    rows = solve_fixed(points, ["a"], direction, 3.0)
    write_solutions(rows, tmp_path / "solutions")
    write_directions(tmp_path / "directions", {"caa_repe": direction}, 3.0, 1)
    rows.assign(selected=[False, True]).to_csv(tmp_path / "pareto")
    return {name: str(tmp_path / name) for name in ("solutions", "directions", "pareto")}


@pytest.fixture
def session(tiny):
    return session_of(tiny, Decoding(new_tokens=3))


def answers(session, files, method="caa_repe", strength="selected"):
    return answers_under(session, ROWS, files, method, strength, site=SITE, target_class=1)


def test_questions_are_answered_at_the_selected_strength_or_a_named_one(session, files):
    chosen, named = (answers(session, files, strength=s) for s in ("selected", {"alpha": 0.5}))
    np.testing.assert_allclose(chosen["norm"].astype(float), 12.0, rtol=1e-5)
    np.testing.assert_allclose(named["norm"].astype(float), 1.5, rtol=1e-5)
    plain = answers(session, files, method="no_steering")
    assert (plain["norm"] == 0).all() and (chosen["text"] != plain["text"]).any()


def test_without_a_selected_strength_no_question_is_answered(session, files):
    table = pd.read_csv(files["pareto"]).assign(selected=False)
    table.to_csv(files["pareto"])
    found = answers(session, files)
    assert set(found["status"]) == {"undefined"}
    assert set(found["reason"]) == {"no strength of caa_repe is selected"}


def test_questions_after_a_persona_are_answered_without_steering(session, tmp_path):
    personas = {"positive": "w10 ", "negative": "w13 w14 "}
    pairs = [{"positive": f"w{i}", "negative": f"w{i + 1}"} for i in (20, 22)]
    texts = {"prompts": ["w1"], "contrast": pairs, "queries": ["w30", "w31"]}
    concept = {"concept": "words", "personas": personas, **texts}
    (tmp_path / "concept.yaml").write_text(yaml.safe_dump(concept))
    files = {"concept": str(tmp_path / "concept.yaml")}
    found = answers(session, files, method="prompting")
    plain = session.answer(ROWS.assign(prompt="w10 " + ROWS["prompt"]))
    said = ["example_id", "prompt", "text", "success", "status"]
    assert found[said].to_dict("records") == plain[said].to_dict("records")
    # A question that no longer fits is not answered, and is counted.
    longest = ROWS["prompt"].str.split().map(len).max()
    words = session.lm.shape.context - session.how.new_tokens - longest + 1
    personas["positive"] = "w10 " * words
    (tmp_path / "concept.yaml").write_text(yaml.safe_dump(concept))
    found = answers(session, files, method="prompting")
    assert set(found["status"]) == {"ok", "undefined"}
    (reason,) = set(found.loc[found["status"] == "undefined", "reason"])
    assert reason == "does not fit the context after the persona"


def test_other_weights_are_refused():
    def fetched(revision):
        return {"model": {"revision": revision}}

    check_same_model(fetched("a"), fetched("a"))
    with pytest.raises(ModelError, match=r"weights b, .* with a"):
        check_same_model(fetched("a"), fetched("b"))
