"""The package as a library: what the README and the published interface show, run as it stands."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

ROOT = Path(__file__).resolve().parent.parent
METHODS = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
INTERFACE = """
from steering_core.methods import QPOptimalSteering
qp = QPOptimalSteering(qp_lambda=1.0, tau=0.5)
v = qp.compute_steering_vector(h=activation, probe_w=probe.weight_vector, probe_b=probe.bias, \
D=decoder, sae_features=None, target_class=1)

from steering_core.optimize import SteeringPath
path = SteeringPath.fit(decoder, probe_weight)
s = path.qp(shortfall, qp_lambda=1.0)
t = path.socp(shortfall, epsilon=5.0)
"""
RNG = np.random.default_rng(0)
D = RNG.standard_normal((120, 24))
D /= np.linalg.norm(D, axis=1, keepdims=True)
W = D[3] + 0.4 * D[9]
H = RNG.standard_normal(24) - W
KINDS = {
    "numpy": lambda x: x,
    "numpy float32": lambda x: x.astype(np.float32),
    "torch": torch.tensor,
    "torch bfloat16": lambda x: torch.tensor(x).bfloat16(),
    "torch with a gradient": lambda x: torch.tensor(x).requires_grad_(),
}


def plain(value: Any) -> np.ndarray:
    return np.asarray(value.detach().double() if isinstance(value, torch.Tensor) else value, float)


@pytest.fixture(params=KINDS)
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    as_kind = KINDS[request.param]
    return {
        "activation": as_kind(H),
        "decoder": as_kind(D),
        "probe": SimpleNamespace(weight_vector=as_kind(W), bias=-0.5),
        "probe_weight": as_kind(W),
        "shortfall": np.array([1.0, 2.0, -1.0]),
    }


def logit(given: dict[str, Any], vector: np.ndarray) -> float:
    return plain(given["probe"].weight_vector) @ (plain(given["activation"]) + vector) - 0.5


def test_the_interface(given: dict[str, Any]):
    exec(INTERFACE, given)
    assert given["v"].shape == (24,) and logit(given, given["v"]) == pytest.approx(0.5)
    for found in (given["s"], given["t"]):
        assert sp.issparse(found.delta) and found.delta.format == "csr"
        assert found.delta.shape == (3, 120)
        assert found.vector.shape == (3, 24)
        assert list(found.status) == ["optimal", "optimal", "already_satisfied"]
        moved = found.vector @ plain(given["probe_weight"])
        np.testing.assert_allclose(moved, [1.0, 2.0, 0.0], atol=1e-9)
        np.testing.assert_allclose(found.objective, found.dual_objective, rtol=1e-7)
        assert (found.dual_violation <= 1e-8).all()
    number = given["path"].qp(2.0, qp_lambda=1.0)  # a number is one input
    np.testing.assert_allclose(number.vector[0], given["s"].vector[1])


def test_the_readme_runs_as_it_stands():
    (block,) = re.findall(r"```python\n(import numpy.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["solution"].vector.shape == (10, 64)
    assert set(names["solution"].status) <= {"optimal", "already_satisfied"}
    steered = names["activations"][0] + names["v"]
    assert np.any(names["v"]) and steered @ names["probe_weight"] + 0.1 == pytest.approx(0.5)


def test_another_direction_in_another_metric_runs_as_it_stands():
    (block,) = re.findall(r"```python\n(import numpy.*?)```", METHODS, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    weight, bias, h = names["weight"], names["bias"], names["residuals"][:10]
    uniform = names["inside"].vectors(names["uniform"].vector)
    np.testing.assert_allclose(uniform @ weight, 2.0, rtol=1e-7)
    logits = (h + names["vectors"]) @ weight + bias
    np.testing.assert_allclose(logits, np.maximum(h @ weight + bias, 2.0), rtol=1e-7)


def test_no_pipeline_is_needed():
    """Nothing of Snakemake is imported, and no model is loaded to solve a program."""
    code = (
        "import sys, steering_core.optimize, steering_core.methods; "
        "print(sorted({'snakemake', 'transformers', 'sae_lens'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
