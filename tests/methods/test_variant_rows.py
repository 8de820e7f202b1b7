"""Rows of the variants: which inputs, and what is said of each."""

import numpy as np
import pytest
from scipy import sparse
from small_world import decoder, fit_data, inputs, probe

from steering_core.errors import ConfigError
from steering_core.methods.variants import (
    COLUMNS,
    concept_subspace,
    rows_outside,
    solve_variants,
    variant_grid,
)
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.variants import VariantPrograms, fit_subspace

TAU = 1.0


@pytest.fixture(scope="module")
def programs():
    chosen = inputs()
    logits = probe().decision(chosen)
    outside = rows_outside(logits, 6)
    dictionary, data = Dictionary(decoder()), fit_data()
    return VariantPrograms(
        path=SteeringPath.fit(dictionary, probe().weight_vector),
        dictionary=dictionary,
        residuals=chosen[outside],
        shortfall=TAU - logits[outside],
        activations=sparse.csr_array(np.maximum(chosen[outside] @ decoder().T, 0)),
        largest=np.maximum(data.residuals @ decoder().T, 0).max(axis=0),
        subspace=fit_subspace(data.residuals, data.labels, k=2),
        prefilter_features=10,
    )


def test_rows_outside_are_drawn_with_a_seed_and_kept_in_order():
    logits = np.array([1.0, -1.0, 0.0, 2.0, -3.0, -0.5])
    assert rows_outside(logits, 9).tolist() == [1, 2, 4, 5]
    drawn = rows_outside(logits, 2, seed=3)
    assert drawn.tolist() == sorted(drawn) and set(drawn) < {1, 2, 4, 5}
    assert drawn.tolist() == rows_outside(logits, 2, seed=3).tolist()


def test_a_row_for_every_variant_program_parameter_and_input(programs):
    grid = variant_grid(["path", "signed", "shared", "subspace"], [1.0, 2.0], [0.01])
    assert grid[:3] == [("path", "qp", 1.0), ("path", "qp", 2.0), ("path", "socp", 0.01)]
    names = [f"t{i}" for i in range(6)]
    rows = solve_variants(programs, grid, names, TAU, probe())
    assert tuple(rows.columns) == COLUMNS
    assert len(rows) == len(grid) * len(names)
    assert rows.groupby("variant")["tau"].first().isna()[["subspace"]].all()
    assert (rows[rows["variant"] == "path"]["inner"] == "").all()
    assert rows[rows["variant"] == "path"]["rounds"].isna().all()
    signed = rows[(rows["variant"] == "signed") & (rows["program"] == "qp")]
    assert (signed["rounds"] >= 1).all() and (signed["inner"] != "").all()
    # The evaluation probe is the fitted one here: every margin it was solved for is reached.
    solved = rows[(rows["status"] == "optimal") & rows["tau"].notna()]
    assert (solved["eval_probe_base"] <= 0).all()
    assert (solved["eval_probe_steered"] >= TAU - 1e-5).all()
    vectors = rows[(rows["variant"] == "shared") & (rows["program"] == "qp")]
    assert vectors.groupby("parameter")["objective"].nunique().tolist() == [1, 1]


def test_what_is_not_solved_has_no_values(programs):
    rows = solve_variants(programs, [("path", "socp", 0.01)], list("abcdef"), TAU, probe())
    assert set(rows["status"]) == {"infeasible"}
    values = ["objective", "l0", "l1", "residual_norm", "eval_probe_steered"]
    assert rows[values].isna().all(axis=None)


def test_without_inputs_there_are_no_rows(programs):
    rows = solve_variants(programs, [("path", "qp", 1.0)], [], TAU, probe())
    assert rows.empty and tuple(rows.columns) == COLUMNS


def test_too_large_a_subspace_is_an_error_of_the_settings():
    data = fit_data()
    assert concept_subspace(data.residuals, data.labels, 0, 50, 3).directions.shape == (3, 12)
    with pytest.raises(ConfigError, match=r"subspace_directions: 12 .* have 11 at most"):
        concept_subspace(data.residuals, data.labels, 1, 50, 12)
