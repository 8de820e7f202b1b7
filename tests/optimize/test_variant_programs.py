"""The variants order themselves as their constraints do, and each keeps to its own."""

import numpy as np
import pytest
from optimize_instances import unit_dictionary
from scipy import sparse

from steering_core.config.settings import VARIANTS
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.subspace import fit_subspace
from steering_core.optimize.variants import VariantPrograms

N, D_SAE, D_MODEL = 4, 120, 12
POINTS = [("qp", 1.0), ("socp", 2.6)]


@pytest.fixture(scope="module")
def programs():
    decoder, weight = unit_dictionary(D_SAE, D_MODEL)
    rng = np.random.default_rng(1)
    residuals = rng.standard_normal((N, D_MODEL))
    train = rng.standard_normal((80, D_MODEL))
    labels = (train @ weight > 0).astype(int)
    active = rng.exponential(size=(N, D_SAE)) * (rng.random((N, D_SAE)) < 0.2)
    dictionary = Dictionary(decoder)
    return VariantPrograms(
        path=SteeringPath.fit(dictionary, weight),
        dictionary=dictionary,
        residuals=residuals,
        shortfall=np.array([1.0, 2.0, 3.0, 4.0]),
        activations=sparse.csr_array(active),
        largest=np.where(np.arange(D_SAE) % 2 == 0, 0.6, 0.0),
        subspace=fit_subspace(train, labels, n_components=10, k=3),
        prefilter_features=4,
    )


@pytest.mark.parametrize(("program", "parameter"), POINTS)
def test_less_freedom_costs_more(programs, program, parameter):
    found = {name: programs.solve(name, program, parameter) for name in VARIANTS}
    for solved in found.values():
        assert set(solved.status) <= {"optimal", "infeasible"}
    plain = found["path"].objective
    assert np.isfinite(plain).all()
    assert (found["signed"].objective < plain * (1 + 1e-7)).all()
    assert (found["signed"].objective < plain * 0.999).any()
    for narrower in ("prefilter", "box"):
        solved = found[narrower].solved
        assert solved.any() and (found[narrower].status[~solved] == "infeasible").all()
        cost = found[narrower].objective[solved]
        assert (cost > plain[solved] * (1 - 1e-7)).all()
        assert (cost > plain[solved] * 1.001).any() or not solved.all()
    assert found["shared"].objective == pytest.approx(plain[-1:], rel=1e-6)


def test_each_keeps_to_its_own_constraints(programs):
    found = {name: programs.solve(name, "qp", 1.0) for name in VARIANTS}
    dense = {name: solved.delta.toarray() for name, solved in found.items()}
    active = programs.activations.toarray()
    gains = programs.dictionary.price(programs.path.weight)
    for name in set(VARIANTS) - {"subspace", "shared"}:
        np.testing.assert_allclose(dense[name] @ gains, programs.shortfall, rtol=1e-6)
    assert (dense["signed"] >= -active - 1e-9).all() and (dense["signed"] < 0).any()
    assert (dense["box"] <= 0.6 + 1e-9).all() and (dense["box"][:, 1::2] == 0).all()
    # Half of 4 by relevance, the same for all; the rest are active features.
    relevant = np.argsort(-np.abs(gains))[:2]
    outside = np.ones(D_SAE, dtype=bool)
    outside[relevant] = False
    assert (active[(dense["prefilter"] > 0) & outside] > 0).all()
    after = programs.residuals + found["subspace"].vector
    assert (programs.subspace.shortfall(after) <= 1e-6).all()
    assert len(found["shared"]) == 1


def test_unknown_names_are_named(programs):
    with pytest.raises(ValueError, match="variant: there is none called 'boxed'"):
        programs.solve("boxed", "qp", 1.0)
    with pytest.raises(ValueError, match="program must be"):
        programs.solve("path", "save", 1.0)
