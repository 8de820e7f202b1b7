"""Rows of solutions: how each input went, and the vector a row stands for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_world import D_MODEL, decoder, fit_data, inputs, probe

from steering_core.config.methods import is_program
from steering_core.config.schema import Settings
from steering_core.methods.base import read_direction
from steering_core.methods.directions import fit_directions, fixed_methods
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.programs import InfeasibleError, grid, make_program, solve_programs
from steering_core.methods.solution_vectors import (
    SolutionVectors,
    coefficient_share,
    read_solution_vectors,
)
from steering_core.methods.solutions import PARTS, solved, with_split, write_solutions
from steering_core.optimize.path import SteeringPath

D = decoder()
H = inputs()
IDS = [f"row {i}" for i in range(len(H))]
SETTINGS = Settings(
    strengths=[0.5, 2.0],
    qp_tau=[0.5, 3.0],
    qp_lambda=[0.2, 2.0],
    socp_tau=[0.5, 2.0],
    socp_epsilon=[0.6, 1.5, 40.0],
)


@pytest.fixture(scope="module", params=[0, 1])
def target(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def path(target: int) -> SteeringPath:
    return SteeringPath.fit(D, probe().oriented(target).weight_vector)


@pytest.fixture(scope="module")
def rows(target: int, path: SteeringPath) -> dict[str, pd.DataFrame]:
    return {
        method: solve_programs(
            grid(method, SETTINGS), IDS, H.astype(np.float32), probe().oriented(target), path
        )
        for method in ("qp_optimal", "convex_optimal")
    }


@pytest.mark.parametrize("method", ["qp_optimal", "convex_optimal"])
def test_rows_expand_to_exactly_what_the_method_computes(
    method: str, target: int, path: SteeringPath, rows: dict[str, pd.DataFrame], tmp_path: Path
):
    found = SolutionVectors(rows[method], tmp_path / "unused", path)
    assert found.points() == list(range(len(grid(method, SETTINGS))))
    checked = {"optimal": 0, "already_satisfied": 0, "infeasible": 0}
    for point in grid(method, SETTINGS):
        program = make_program(method, point.tau, point.qp_lambda, point.epsilon)
        at = found.at(point.strength_index, IDS[::-1])
        assert at["example_id"].tolist() == IDS[::-1]
        vectors = found.vectors(at)
        for row, vector in zip(at.itertuples(), vectors, strict=True):
            h = H[IDS.index(row.example_id)].astype(np.float32).astype(float)
            call = (h, probe().weight_vector, probe().bias, D)
            checked[row.status] += 1
            if row.status == "infeasible":
                assert np.isnan(vector).all()
                with pytest.raises(InfeasibleError):
                    program.compute_steering_vector(*call, target_class=target)
                continue
            want = program.compute_steering_vector(*call, target_class=target)
            np.testing.assert_allclose(vector, want, rtol=1e-11, atol=1e-13)
            # Nothing is multiplied afterwards: size as solved, margin as asked for.
            assert np.linalg.norm(vector) == pytest.approx(row.residual_norm, rel=1e-9, abs=1e-12)
            after = probe().oriented(target).decision((h + vector)[None])[0]
            if row.status == "optimal":
                assert after == pytest.approx(row.tau, abs=1e-9)
            else:
                assert after >= row.tau
                np.testing.assert_array_equal(vector, 0)
    assert checked["optimal"] > 0 and checked["already_satisfied"] > 0
    assert (checked["infeasible"] > 0) == (method == "convex_optimal")


@pytest.mark.parametrize("method", ["qp_optimal", "convex_optimal"])
def test_what_is_stored_for_each_input(method: str, rows: dict[str, pd.DataFrame]):
    table = rows[method]
    assert len(table) == len(IDS) * len(grid(method, SETTINGS))
    best = table[table["status"] == "optimal"]
    assert (best["relative_gap"].abs() < 1e-8).all()
    assert (best["dual_objective"] <= best["objective"] * (1 + 1e-9)).all()
    assert (best["dual_violation"] >= 0).all() and (best["dual_violation"] < 1e-8).all()
    assert (best["l0"] >= 1).all() and (best["l1"] > 0).all()
    nothing = table[table["status"] == "already_satisfied"]
    assert (nothing["shortfall"] <= 0).all()
    assert (nothing[["objective", "l0", "l1", "residual_norm"]] == 0).all(axis=None)
    failed = table[table["status"] == "infeasible"]
    numbers = ["position", "objective", "dual_objective", "relative_gap", "dual_violation"]
    assert failed[[*numbers, "l0", "l1", "residual_norm"]].isna().all(axis=None)
    assert (failed["shortfall"] > 0).all()
    if method == "convex_optimal":
        assert len(failed) > 0
        assert (best["residual_norm"] <= best["epsilon"] * (1 + 1e-9)).all()
        np.testing.assert_allclose(best["objective"], best["l1"])
    else:
        want = best["l1"] + best["lam"] / 2 * best["residual_norm"] ** 2
        np.testing.assert_allclose(best["objective"], want)
    assert solved(table).tolist() == (table["status"] != "infeasible").tolist()


def test_l0_and_l1_are_those_of_delta(path: SteeringPath, rows: dict[str, pd.DataFrame]):
    table = rows["qp_optimal"]
    table = table[table["status"] == "optimal"]
    delta = path.at(
        table["position"].to_numpy(), table["shortfall"].to_numpy(), "qp", table["lam"].to_numpy()
    ).delta.toarray()
    assert (delta >= 0).all()
    np.testing.assert_array_equal(table["l0"], np.count_nonzero(delta, axis=1))
    np.testing.assert_allclose(table["l1"], delta.sum(axis=1), rtol=1e-10)
    np.testing.assert_allclose(
        table["residual_norm"], np.linalg.norm(delta @ D, axis=1), rtol=1e-10
    )


def test_inputs_are_solved_one_by_one(path: SteeringPath, rows: dict[str, pd.DataFrame]):
    table = rows["qp_optimal"]
    first = table[table["strength_index"] == 1]
    moved = first[first["status"] == "optimal"]
    assert moved["residual_norm"].nunique() == len(moved) > 5


def test_fixed_rows(tmp_path: Path):
    data = fit_data()
    methods = fixed_methods(SETTINGS)
    fit_directions(methods, data, D, tmp_path / "d")
    for method in (m.name for m in methods):
        direction, unit = read_direction(tmp_path / "d", method)
        table = solve_fixed(grid(method, SETTINGS), IDS, direction, unit)
        found = SolutionVectors(table, tmp_path / "d")
        assert set(table["status"]) == {"fixed"}
        assert solved(table).all()
        for index in found.points():
            at = found.at(index, IDS)
            vectors = found.vectors(at)
            assert vectors.shape == (len(IDS), D_MODEL)
            norms = np.linalg.norm(vectors, axis=1)
            np.testing.assert_allclose(norms, at["residual_norm"], rtol=1e-12)
            np.testing.assert_allclose(norms, at["strength"] * data.residual_norm, rtol=1e-12)
            through_features = method in ("no_steering", "single_feature", "topk_features")
            assert at["l0"].notna().all() == through_features
            assert at["l1"].notna().all() == through_features
            if method == "topk_features":
                assert (at["l0"] == SETTINGS.topk).all()
                want = np.abs(direction.coefficients).sum() * at["strength"] * unit
                np.testing.assert_allclose(at["l1"], want)
            if method == "no_steering":
                assert (at[["l0", "l1", "residual_norm"]] == 0).all(axis=None)


def test_files_bring_the_same_vectors_back(
    tmp_path: Path, target: int, path: SteeringPath, rows: dict[str, pd.DataFrame]
):
    methods = fixed_methods(SETTINGS)
    fit_directions(methods, fit_data(target), D, tmp_path / "d")
    frames = [
        *rows.values(),
        *(
            solve_fixed(grid(m.name, SETTINGS), IDS, *read_direction(tmp_path / "d", m.name))
            for m in methods
        ),
    ]
    files = [tmp_path / "programs", tmp_path / "fixed"]
    for file, part in zip(files, (frames[: len(rows)], frames[len(rows) :]), strict=True):
        write_solutions(pd.concat(part, ignore_index=True), file)
    path.save(tmp_path / "p")
    for method in [*rows, *(m.name for m in methods)]:
        found = read_solution_vectors(method, files, tmp_path / "d", tmp_path / "p")
        own = files[0 if is_program(method) else 1]
        alone = read_solution_vectors(method, own, tmp_path / "d", tmp_path / "p")
        pd.testing.assert_frame_equal(found.rows, alone.rows)
        assert found.method == method
        if is_program(method):
            before = SolutionVectors(rows[method], tmp_path / "d", path)
            for index in found.points():
                np.testing.assert_allclose(
                    found.vectors(found.at(index, IDS)),
                    before.vectors(before.at(index, IDS)),
                    rtol=1e-12,
                    atol=1e-15,
                )


def test_misuse_is_refused(tmp_path: Path, path: SteeringPath, rows: dict[str, pd.DataFrame]):
    with pytest.raises(ValueError, match="of one method"):
        SolutionVectors(pd.concat(rows.values()), tmp_path, path)
    with pytest.raises(ValueError, match="needs the steering path"):
        SolutionVectors(rows["qp_optimal"], tmp_path)
    with pytest.raises(ValueError, match="needs the file of its direction"):
        SolutionVectors(rows["qp_optimal"].assign(method="caa_repe"), path=path)
    with pytest.raises(KeyError):
        SolutionVectors(rows["qp_optimal"], tmp_path, path).at(0, ["unknown"])


def test_coefficient_share(path: SteeringPath, rows: dict[str, pd.DataFrame]):
    both = pd.concat(rows.values(), ignore_index=True)
    share = coefficient_share(both, path)
    assert share.shape == (len(D),)
    assert share.sum() == pytest.approx(1)
    table = rows["qp_optimal"]
    table = table[table["status"] == "optimal"]
    total = sum(
        path.qp(r.shortfall, qp_lambda=r.lam).delta.toarray()[0] for r in table.itertuples()
    )
    np.testing.assert_allclose(share, total / total.sum(), atol=1e-12)
    np.testing.assert_array_equal(coefficient_share(rows["convex_optimal"], path), np.zeros(len(D)))


def test_a_family_that_no_method_uses_has_an_empty_table(tmp_path):
    examples = pd.DataFrame({"example_id": ["a"], "split": ["test"]})
    write_solutions(with_split([], examples), tmp_path / "rows.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows.empty and {"example_id", "split", *PARTS} <= set(rows.columns)
