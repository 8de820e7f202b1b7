"""Effects on the probes equal a direct computation; no solution, no number."""

import numpy as np
import pytest

from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint
from steering_core.metrics.probe_effects import probe_effects
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe

IDS = [f"e{i}" for i in range(6)]


def probe(weight, bias):
    return LinearProbe(weight, bias, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)


@pytest.fixture
def world(tmp_path):
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(50, 16)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    fitted, independent = probe(rng.normal(size=16), 0.3), probe(rng.normal(size=16), -0.7)
    along = fitted.weight_vector / (fitted.weight_vector @ fitted.weight_vector)
    residuals = rng.normal(size=(6, 16)) + np.outer([9, 0, -2, -4, -6, -1e4], along)
    return decoder, fitted, independent, residuals.astype(np.float32), tmp_path / "d.safetensors"


@pytest.mark.parametrize("method", ["qp_optimal", "convex_optimal"])
def test_programs(world, method):
    decoder, fitted, independent, residuals, file = world
    path = SteeringPath.fit(decoder, fitted.weight_vector)
    points = [
        GridPoint(method, 0, "tau", 0.5, 0.5, 1.0, None),
        GridPoint(method, 1, "tau", 2.0, 2.0, 1.0, None),
    ]
    if method == "convex_optimal":
        points = [
            GridPoint(method, i, "epsilon", e, 0.5, None, e) for i, e in enumerate((1.5, 4.0))
        ]
    rows = solve_programs(points, IDS, residuals, fitted, path)
    effects = probe_effects(SolutionVectors(rows, file, path), IDS, residuals, fitted, independent)
    assert effects["example_id"].tolist() == IDS * 2
    unsolved = ~rows["status"].isin(["optimal", "already_satisfied"])
    if method == "convex_optimal":
        assert unsolved.any()
    steered = effects[["probe_steered", "eval_probe_steered"]]
    assert steered[unsolved.to_numpy()].isna().all(axis=None)
    assert steered[~unsolved.to_numpy()].notna().all(axis=None)
    base = effects[["probe_base", "eval_probe_base"]]
    assert base.notna().all(axis=None)
    np.testing.assert_allclose(base["probe_base"], np.tile(fitted.decision(residuals), 2))
    np.testing.assert_allclose(base["eval_probe_base"], np.tile(independent.decision(residuals), 2))
    # Row by row, from the coefficients of a fresh solve.
    for i, row in effects.iterrows():
        if unsolved[i]:
            continue
        shortfall = rows["shortfall"][i]
        solve = path.qp if method == "qp_optimal" else path.socp
        parameter = rows["lam" if method == "qp_optimal" else "epsilon"][i]
        vector = solve(shortfall, float(parameter)).delta.toarray()[0] @ decoder.astype(float)
        moved = residuals[[i % 6]].astype(float) + vector
        assert row["probe_steered"] == pytest.approx(float(fitted.decision(moved)[0]), abs=1e-4)
        assert row["eval_probe_steered"] == pytest.approx(
            float(independent.decision(moved)[0]), abs=1e-4
        )
    reached = effects["probe_steered"][(rows["status"] == "optimal").to_numpy()]
    tau = rows["tau"][rows["status"] == "optimal"]
    assert (reached.to_numpy() >= tau.to_numpy(dtype=float) - 1e-4).all()


def test_fixed_directions_in_any_order(world):
    from steering_core.methods.base import Direction
    from steering_core.storage.arrays import save_arrays

    _, fitted, independent, residuals, file = world
    vector = np.random.default_rng(1).normal(size=16)
    vector /= np.linalg.norm(vector)
    save_arrays(
        file,
        {"residual_norm": np.array([4.0]), "caa_mean_diff.vector": vector},
        {"target_class": 1},
    )
    points = [
        GridPoint("caa_mean_diff", i, "strength", s, None, None, None)
        for i, s in enumerate((0.5, 2.0))
    ]
    rows = solve_fixed(points, IDS, Direction(vector), 4.0)
    order = [3, 1, 0]
    effects = probe_effects(
        SolutionVectors(rows, file), [IDS[i] for i in order], residuals[order], fitted, independent
    )
    for k, strength in enumerate((0.5, 2.0)):
        moved = residuals[order].astype(float) + strength * 4.0 * vector
        got = effects[effects["strength_index"] == k]
        np.testing.assert_allclose(got["probe_steered"], fitted.decision(moved), rtol=1e-10)
        np.testing.assert_allclose(
            got["eval_probe_steered"], independent.decision(moved), rtol=1e-10
        )
