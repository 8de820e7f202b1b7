"""The table of a guarded program: certified between its nodes, equal to the solver everywhere."""

import numpy as np
import pytest
import torch
from optimize_instances import unit_dictionary

from steering_core.optimize.guarded import GuardedProgram
from steering_core.optimize.guarded_table import TOLERANCE, GuardedLookup, GuardedTable
from steering_core.optimize.lookup import PathLookup
from steering_core.optimize.solution import (
    INACCURATE,
    INFEASIBLE,
    OPTIMAL,
    SATISFIED,
)
from steering_core.optimize.working_set.bounds import Guards

D_MODEL = 16


def guarded(kappa=0.2, d_sae=120):
    decoder, weight = unit_dictionary(d_sae, D_MODEL)
    directions = np.random.default_rng(0).standard_normal((2, D_MODEL))
    return GuardedProgram(decoder, weight, Guards.of(directions, kappa))


def value(program, parameter, l1, vector):
    return l1 + 0.5 * parameter * (vector**2).sum(axis=1) if program == "qp" else l1


@pytest.mark.parametrize(("program", "parameter"), [("qp", 1.0), ("socp", 3.0)])
@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_between_nodes_it_is_the_solver_up_to_its_tolerance(program, parameter, kappa):
    program_of = guarded(kappa)
    table = GuardedTable(program_of, program, parameter)
    r = np.concatenate([[-1.0, 1e-4], np.linspace(0.05, 1.5, 12)])
    vectors, codes = table.query(torch.tensor(r))
    exact = getattr(program_of, program)(r, parameter)
    assert codes.tolist() == [SATISFIED] + [OPTIMAL] * (len(r) - 1)
    assert (exact.status[1:] == "optimal").all()
    got = vectors.numpy()[1:]
    assert (got @ program_of.path.weight >= r[1:] * (1 - 1e-9)).all()
    assert (np.abs(program_of.guards.shifts(got)) <= kappa + 1e-9).all()
    if program == "qp":  # its vector is unique, and no further than the gap allows
        far = 0.5 * parameter * ((got - exact.vector[1:]) ** 2).sum(axis=1)
        assert (far <= TOLERANCE * exact.objective[1:] + 1e-12).all()
    assert len(table) < 60  # a solve for each node, not for each query


def test_what_is_too_far_is_infeasible_and_names_its_guard(caplog):
    # The only feature that raises the probe moves the guard as far: r <= kappa.
    decoder, weight = np.array([[1.0, 1.0]]), np.array([1.0, 0.0])
    held = Guards.of(np.array([[0.0, 1.0], [1.0, 0.0]]), [0.5, 9.0], ("refusal", "wide"))
    table = GuardedTable(GuardedProgram(decoder, weight, held), "qp", 1.0)
    table.query(torch.tensor([0.25], dtype=torch.float64))
    assert not table.blocked_by and not caplog.text
    vectors, codes = table.query(torch.tensor([0.25, 0.5 - 1e-6, 0.6, 2.0], dtype=torch.float64))
    assert codes.tolist() == [OPTIMAL, OPTIMAL, INFEASIBLE, INFEASIBLE]
    assert not vectors[2:].any()
    assert table.infeasible_from == pytest.approx(0.5, abs=1e-6)
    assert table.blocked_by == ("refusal",)
    table.query(torch.tensor([3.0], dtype=torch.float64))
    assert (
        caplog.text.count("beyond a shortfall of 0.5 the guards (refusal) leave no solution") == 1
    )


def test_near_the_limit_nothing_is_called_optimal():
    decoder, weight = np.array([[1.0, 1.0]]), np.array([1.0, 0.0])
    program_of = GuardedProgram(decoder, weight, Guards.of(np.array([[0.0, 1.0]]), 0.5))
    table = GuardedTable(program_of, "qp", 1.0)
    table.query(torch.tensor([2.0], dtype=torch.float64))
    # Between the last known solution and the first known failure nothing is claimed.
    between = torch.tensor([0.5 * (table.reach + table.infeasible_from)], dtype=torch.float64)
    assert table.query(between)[1].tolist() == [INACCURATE]


def test_it_grows_with_the_queries_and_keeps_its_nodes():
    table = GuardedTable(guarded(), "qp", 1.0)
    table.query(torch.tensor([0.4], dtype=torch.float64))
    nodes, solves = len(table), table.solves
    table.query(torch.tensor([0.3, 0.45], dtype=torch.float64))
    assert (len(table), table.solves) == (nodes, solves)
    table.query(torch.tensor([1.2], dtype=torch.float64))
    assert len(table) > nodes and table.reach >= 1.2


def test_a_certificate_that_is_too_loose_is_seen():
    table = GuardedTable(guarded(), "qp", 1.0, tolerance=1e-15)
    codes = table.query(torch.linspace(0.1, 1.0, 7, dtype=torch.float64))[1]
    assert (codes == INACCURATE).any()


def test_only_rows_over_a_guard_are_replaced():
    program_of = guarded(0.1)
    program_of.path.extend(20.0)
    lookup, replacing = PathLookup(program_of.path), GuardedLookup(program_of, "qp")
    r = torch.tensor([-1.0, 0.02, 0.5, 1.0], dtype=torch.float64)
    parameter = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    free, codes = lookup.qp(r, parameter)
    vectors, replaced = replacing.replaced(free, codes, r, parameter)
    exact = program_of.qp(r.numpy(), parameter.numpy())
    assert exact.on_path.tolist() == [True, True, False, False]
    torch.testing.assert_close(vectors[:2], free[:2].double())
    np.testing.assert_allclose(vectors.numpy(), exact.vector, atol=5e-3)
    assert (np.abs(program_of.guards.shifts(vectors.numpy())) <= 0.1 + 1e-6).all()
    assert replaced.tolist() == [SATISFIED, OPTIMAL, OPTIMAL, OPTIMAL]
