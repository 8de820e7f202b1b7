"""At equal norm: the rows, norms and flips of a small world worked out directly."""

import json

import numpy as np
import pandas as pd
import pytest
from table_data import pareto_table

from steering_core.methods.programs import solve_programs
from steering_core.methods.solution_vectors import SolutionVectors
from steering_core.methods.solutions import GridPoint, ModelUnits
from steering_core.metrics.probe_effects import norm_matched_effects
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.tables.norm_matched import norm_matched_figure, norm_matched_table

IDS = [f"e{i}" for i in range(8)]


def probe(weight, bias=0.0):
    return LinearProbe(weight, bias, (0, 1), 1.0, 1.0, (1.0,), 0.0, False, 10)


UNITS = ModelUnits(logit=2.0, residual_norm=10.0)


@pytest.fixture
def world(tmp_path):
    rng = np.random.default_rng(1)
    decoder = rng.normal(size=(50, 16)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weight = rng.normal(size=16)
    along = weight / (weight @ weight)
    residuals = np.outer([9.0, 0, -1, -2, -3, -4, -5, -1e4], along)
    path = SteeringPath.fit(decoder, weight)
    points = [
        UNITS.in_both(GridPoint("convex_optimal", i, "epsilon", e, 1.0, None, e), "absolute")
        for i, e in ((0, 2.0), (1, 6.0))
    ]
    rows = solve_programs(points, IDS, residuals, probe(weight), path)
    return SolutionVectors(rows, tmp_path / "none", path), weight, residuals


def test_norms_are_equal_and_infeasible_rows_are_left_out(world):
    program, weight, residuals = world
    other = np.random.default_rng(2).normal(size=16)
    directions = {"along": 3.0 * weight, "other": other}
    got = norm_matched_effects(program, directions, IDS, residuals, probe(weight))
    for index in program.points():
        rows = program.at(index, IDS)
        used = rows["status"].isin(["optimal", "already_satisfied"]) & (residuals @ weight <= 0)
        assert 0 < used.sum() < 8
        vectors = program.vectors(rows[used])
        for name, direction in directions.items():
            part = got[(got["strength_index"] == index) & (got["direction"] == name)]
            assert part["example_id"].tolist() == rows.loc[used, "example_id"].tolist()
            np.testing.assert_allclose(part["norm"], np.linalg.norm(vectors, axis=1))
            scaled = part["norm"].to_numpy()[:, None] * direction / np.linalg.norm(direction)
            base = residuals[used]
            np.testing.assert_array_equal(part["program_flipped"], (base + vectors) @ weight > 0)
            np.testing.assert_array_equal(part["direction_flipped"], (base + scaled) @ weight > 0)


def test_the_table_pairs_the_rows(world):
    program, weight, residuals = world
    rows = norm_matched_effects(program, {"back": -weight}, IDS, residuals, probe(weight))
    table = norm_matched_table(rows, "e", seed=3, n_resamples=100)
    assert len(table) == 2 and (table["direction"] == "back").all()
    assert (table["program_flip_rate"] == 1).all() and (table["direction_flip_rate"] == 0).all()
    assert (table[["difference", "difference_ci_high", "program_flip_ci_high"]] == 1).all(axis=None)
    first = rows[rows["strength_index"] == 0]
    lowest = 0.025 ** (1 / len(first))  # few rows that all flip are no proof that every row does
    # The rows that were not drawn may all be flipped by the direction alone.
    assert table["difference_ci_low"][0] == pytest.approx(2 * table["program_flip_ci_low"][0] - 1)
    assert table["program_flip_ci_low"][0] == pytest.approx(lowest)
    assert table["direction_flip_ci_high"][0] == pytest.approx(1 - lowest)
    assert table["n"][0] == len(first)
    assert table["residual_norm_mean"][0] == pytest.approx(first["norm"].mean())


def test_no_rows_give_an_empty_table_and_a_zero_direction_is_an_error(world):
    program, weight, residuals = world
    rows = norm_matched_effects(
        program, {"any": weight}, IDS, residuals + 1e3 * weight, probe(weight)
    )
    assert norm_matched_table(rows, "e").empty
    with pytest.raises(ValueError, match="nothing"):
        norm_matched_effects(program, {"nothing": 0 * weight}, IDS, residuals, probe(weight))


def matched_rows() -> pd.DataFrame:
    """Two strengths of a program against two directions."""
    rows = [
        {
            "experiment": "demo",
            "method": "qp_optimal",
            "strength_name": "tau",
            "strength": strength,
            "direction": direction,
            "n": 50,
            "program_flip_rate": 0.9,
            "direction_flip_rate": 0.4,
            "difference": 0.5,
            "difference_ci_low": 0.3,
            "difference_ci_high": 0.7,
        }
        for strength in (1.0, 2.0)
        for direction in ("caa_mean_diff", "random_direction")
    ]
    return pd.DataFrame(rows)


def test_equal_norm_stands_out_at_the_selected_strength_alone():
    df = pareto_table()
    df["selected"] = (df["method"] == "qp_optimal") & (df["strength"] == 2.0)
    chart = norm_matched_figure(matched_rows(), df).to_dict()
    (panel,) = chart["concat"]
    assert panel["title"] == {"text": "qp_optimal", "subtitle": "τ = 2, 50 rows"}
    (texts,) = [one for one in panel["layer"] if one["mark"]["type"] == "text"]
    assert texts["transform"] == [{"filter": "datum.selected"}]
    data = texts.get("data") or panel["data"]
    rows = pd.DataFrame(chart["datasets"][data["name"]])
    assert rows.loc[rows["selected"], "rates"].tolist() == ["90% : 40%"] * 2
    assert len(rows) == 4
    nothing = norm_matched_figure(matched_rows(), df.assign(selected=pd.NA)).to_dict()
    assert nothing["concat"][0]["title"]["subtitle"] == "no strength selected"


def test_equal_norm_without_a_solved_row_is_a_note():
    chart = norm_matched_figure(matched_rows().iloc[:0], pareto_table()).to_dict()
    assert "nothing to compare" in json.dumps(chart)
