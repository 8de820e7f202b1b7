"""Methods of an experiment with pareto.csv answer task questions: what they add there."""

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, session_of, word_rows

from steering_core.corrsteer.decoding import Decoding
from steering_core.corrsteer.experiment_methods import (
    check_same_model,
    chosen_point,
    experiment_strength,
)
from steering_core.corrsteer.sparse_answers import answer_at
from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptivePlan
from steering_core.methods.base import Direction, write_directions
from steering_core.methods.programs import solve_programs
from steering_core.methods.solutions import GridPoint
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import save_arrays

IDS = ["a", "b", "c"]
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, 32)).astype(np.float32)
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = RNG.standard_normal(32)
PROBE = LinearProbe(WEIGHT, -0.2, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)
H = RNG.standard_normal((3, 32))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    names = {name: str(folder / name) for name in ("directions", "path", "probe", "decoder")}
    path = SteeringPath.fit(DECODER, WEIGHT)
    path.qp(np.array([3.0]), qp_lambda=1.0)
    path.save(names["path"])
    PROBE.save(names["probe"])
    save_arrays(names["decoder"], {"decoder": DECODER}, {})
    directions = {
        "caa_mean_diff": Direction(WEIGHT / np.linalg.norm(WEIGHT)),
        "single_feature": Direction(DECODER[3].astype(float), np.array([3]), np.array([1.0])),
    }
    write_directions(names["directions"], directions, 2.5, 1)
    return names


def point(method, **cells):
    row = {"method": method, "strength": np.nan, "tau": np.nan, "lam": np.nan, "epsilon": np.nan}
    return pd.Series(row | cells)


def steered(method, files, residuals=H, **cells):
    strength = experiment_strength(
        point(method, **cells), files, site=SITE, target_class=1, device=torch.device("cpu")
    )
    return strength, strength.steer(residuals)


@pytest.mark.parametrize(("method", "used"), [("caa_mean_diff", None), ("single_feature", 1)])
def test_a_direction_has_the_length_that_it_has_in_its_experiment(files, method, used):
    strength, found = steered(method, files, strength=0.5)
    assert strength.name == "alpha 0.5" and found.reason == [""] * 3
    norms = found.intervention.norms(3)
    np.testing.assert_allclose(norms, 0.5 * 2.5)
    assert found.n_features is None if used is None else found.n_features.tolist() == [used] * 3


@pytest.mark.parametrize(
    ("method", "cells"),
    [("qp_optimal", {"tau": 4.0, "lam": 1.0}), ("convex_optimal", {"tau": 1.0, "epsilon": 50.0})],
)
def test_a_static_program_brings_each_question_to_the_margin(files, method, cells):
    _, found = steered(method, files, **cells)
    (what,) = found.intervention.at.values()
    assert found.reason == [""] * 3
    after = PROBE.decision(H + what.vectors)
    assert (after >= cells["tau"] - 1e-6).all()
    # It is what the experiment's own solver adds for such residuals.
    names = {"qp_lambda": cells.get("lam"), "epsilon": cells.get("epsilon")}
    own = GridPoint(method, 0, "-", 1.0, cells["tau"], **names)
    rows = solve_programs([own], IDS, H, PROBE, SteeringPath.fit(DECODER, WEIGHT))
    np.testing.assert_allclose(found.intervention.norms(3), rows["residual_norm"], rtol=1e-6)
    np.testing.assert_allclose(found.n_features, rows["l0"])


def test_a_shared_vector_is_that_of_the_experiment(files):
    _, found = steered("qp_shared", files, tau=4.0, lam=1.0, shortfall=6.5)
    (what,) = found.intervention.at.values()
    np.testing.assert_allclose(what.vectors @ WEIGHT, 6.5)


def test_an_adaptive_program_is_solved_at_every_position(files, tiny):
    strength, found = steered("qp_adaptive", files, tau=4.0, lam=1.0)
    assert isinstance(found.intervention.at[SITE], AdaptivePlan)
    rows, session = word_rows(3), session_of(tiny, Decoding(new_tokens=3))
    answers = answer_at(session, rows, SITE, strength)
    assert set(answers["status"]) == {"ok"} and answers["norm"].isna().all()
    assert (answers["text"] != session.answer(rows)["text"]).any()


def test_the_strength_is_named_or_the_selected_one():
    points = [GridPoint("qp_optimal", i, "-", tau, tau, 1.0) for i, tau in enumerate((2.0, 4.0))]
    rows = pd.concat([pd.DataFrame([p.columns()] * 2) for p in points], ignore_index=True)
    assert chosen_point(rows, {"tau": 4.0, "lam": 1.0}, None)["strength_index"] == 1
    pareto = rows.drop_duplicates("strength_index").assign(selected=[True, False])
    assert chosen_point(rows, "selected", pareto)["strength_index"] == 0
    assert chosen_point(rows, "selected", pareto.assign(selected=False)) is None


def test_other_weights_are_refused():
    def fetched(revision):
        return {"model": {"revision": revision}}

    check_same_model(fetched("a"), fetched("a"))
    with pytest.raises(ModelError, match=r"weights b, .* with a"):
        check_same_model(fetched("a"), fetched("b"))
