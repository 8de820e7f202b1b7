"""Gated methods and guarded programs are refused by exports, with what to export instead."""

import numpy as np
import pandas as pd
import pytest

from steering_core.errors import DataError
from steering_core.exports.rows import refuse_conditions
from steering_core.methods.gates import Gate
from steering_core.methods.interventions import PlanRows, ProgramLogit, ProgramRows
from steering_core.models.site import Site
from steering_core.optimize.working_set.guards import Guards

SITE = Site(1, "pre", False, True)


def program(**given):
    rows = pd.DataFrame({"method": ["mine"]})
    return ProgramRows(rows, SITE, np.ones((1, 3)), np.zeros(1, int), **given)


def test_a_gate_is_refused():
    with pytest.raises(DataError, match="mine acts only where its gate is open"):
        refuse_conditions(program(gate=Gate(np.ones(3), 0.0)))


def test_a_program_that_is_solved_again_with_guards_is_refused():
    guarded = ProgramLogit("qp", np.ones(3), 0.0, None, guards=Guards.of(np.ones(3), 0.5))
    with pytest.raises(DataError, match="mine is solved with guards"):
        refuse_conditions(program(logit=guarded))


def test_everything_else_is_let_through():
    refuse_conditions(program(logit=ProgramLogit("qp", np.ones(3), 0.0, None)))
    refuse_conditions(PlanRows(pd.DataFrame({"method": ["plan"]}), {SITE: np.ones(3)}))
