"""Random instances of every program with its limits, held to the reference."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st
from optimize_instances import KINDS, instance

from benchmarks.reference import solve_reference
from steering_core.optimize.working_set.bounds import Limits, ablation_limits, prefilter, relevance
from steering_core.optimize.working_set.solver import WorkingSet

LIMITS = ("plain", "signed", "box", "prefilter")


@dataclass(frozen=True)
class Problem:
    """A program for one input, as its definition reads."""

    decoder: np.ndarray
    directions: np.ndarray
    r: np.ndarray
    limits: Limits
    program: str
    parameter: float

    @property
    def bounds(self):
        """``(up, down)`` of each feature."""
        return self.limits.rows(0, 1, len(self.decoder))

    def reference(self):
        """The textbook's answer."""
        up, down = self.bounds
        name = {"qp": "qp_lambda", "socp": "epsilon"}[self.program]
        return solve_reference(
            self.decoder, self.directions, self.r, lower=-down, upper=up, **{name: self.parameter}
        )

    def working_set(self, cone_solver):
        """The working set's answer."""
        solver = WorkingSet(self.decoder, self.directions, cone_solver=cone_solver)
        return getattr(solver, self.program)(self.r[None], self.parameter, self.limits)


@dataclass(frozen=True)
class Case:
    """What a problem is drawn from."""

    kind: str
    seed: int
    d_sae: int
    d_model: int
    k: int
    limit: str
    program: str
    cone_solver: str = "clarabel"

    def build(self):
        """The problem."""
        rng = np.random.default_rng(self.seed)
        decoder, weight = instance(self.kind, self.d_sae, self.d_model, self.seed)
        directions = np.stack([weight, *rng.standard_normal((self.k - 1, self.d_model))])
        r = rng.uniform(-1.0, 3.0, self.k)
        active = rng.exponential(size=self.d_sae) * (rng.random(self.d_sae) < 0.5)
        size = np.linalg.norm(decoder, axis=1).max() or 1.0
        match self.limit:
            case "plain":
                limits = Limits()
            case "signed":
                limits = ablation_limits(active / size)
            case "box":
                limits = Limits(up=rng.uniform(0.05, 3.0, self.d_sae) / size, down=active / size)
            case "prefilter":
                mask = prefilter(active[None], relevance(decoder, directions), self.d_sae // 2 + 2)
                limits = Limits(up=np.where(mask[0], np.inf, 0.0))
        if self.program == "qp":
            parameter = 10.0 ** rng.uniform(-5, 3)
        else:
            shortest = max(r.max(), 0.1) / (np.linalg.norm(directions, axis=1).min() or 1.0)
            parameter = float(shortest * rng.choice([0.5, 1.2, 2.0, 5.0, 50.0]))
        return Problem(decoder, directions, r, limits, self.program, parameter)

    def solve(self):
        """The working set's answer."""
        return self.build().working_set(self.cone_solver)


def cases(kinds=KINDS, max_sae=24, max_model=8):
    """Hypothesis strategy of cases."""
    return st.builds(
        Case,
        st.sampled_from(kinds),
        st.integers(0, 10**6),
        st.integers(1, max_sae),
        st.integers(1, max_model),
        st.integers(1, 3),
        st.sampled_from(LIMITS),
        st.sampled_from(["qp", "socp"]),
        st.sampled_from(["clarabel", "scs"]),
    )


def assert_right(problem, mine):
    """Status, objective and certificate against the reference and the program itself."""
    decoder, directions, r = problem.decoder, problem.directions, problem.r
    up, down = problem.bounds
    reference = problem.reference()
    status, delta = mine.status[0], mine.delta.toarray()[0]
    if (r <= 0).all():
        assert status == "already_satisfied" and mine.objective[0] == 0 and not delta.any()
        assert reference.status != "infeasible"
        return
    if status == "infeasible":
        assert np.isnan(mine.objective[0]) and np.isnan(mine.vector).all() and not delta.any()
        assert mine.l0[0] == -1
        assert not refutes(problem, reference), "the reference has a point"
        return
    assert status == "optimal"
    assert (delta <= up).all() and (delta >= -down).all()
    vector = delta @ decoder
    np.testing.assert_allclose(mine.vector[0], vector, atol=1e-9 * np.abs(vector).max())
    gains = directions @ decoder.T
    assert (gains @ delta >= r - 1e-7 * r.max() - 1e-12 * np.abs(gains) @ np.abs(delta)).all()
    value = np.abs(delta).sum()
    if problem.program == "qp":
        value += problem.parameter / 2 * vector @ vector
    else:
        assert np.linalg.norm(vector) <= problem.parameter * (1 + 1e-7)
    assert mine.objective[0] == pytest.approx(value, rel=1e-8)
    assert abs(mine.relative_gap[0]) <= 1e-5
    # A feasible point with a certificate refutes a reference that gives up or is inaccurate.
    if reference.status == "optimal" and refutes(problem, reference, 1e-7):
        assert mine.objective[0] == pytest.approx(reference.objective, rel=1e-4, abs=1e-7)


def refutes(problem, reference, tolerance=1e-5):
    """Whether the reference's point does what the program asks."""
    if reference.status not in ("optimal", "inaccurate"):
        return False
    up, down = problem.bounds
    delta = np.clip(reference.delta, -down, up)
    gap = (problem.r - problem.directions @ problem.decoder.T @ delta).max() / problem.r.max()
    norm = np.linalg.norm(delta @ problem.decoder)
    over = norm / problem.parameter - 1 if problem.program == "socp" else 0.0
    return max(gap, over) <= tolerance
