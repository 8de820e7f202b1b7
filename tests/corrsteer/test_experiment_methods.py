"""Methods of an experiment with pareto.csv answer the questions of a task."""

import numpy as np
import pandas as pd
import pytest
import yaml
from corrsteer_world import SITE, session_of, word_rows

from steering_core.corrsteer.answers import Decoding
from steering_core.corrsteer.experiment_methods import answers_under, check_same_model
from steering_core.errors import ModelError
from steering_core.methods.base import Direction, write_directions
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.solutions import GridPoint, write_solutions

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
