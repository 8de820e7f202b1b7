"""Real programs beside llama.cpp apply a vector as our hook does, where they are installed."""

import sys
from importlib.metadata import version

import pytest
import torch
from render_parity import Row, write_rows

from steering_core import load_intervention
from steering_core.errors import ConfigError
from steering_core.exports.formats import to_lm_eval, to_repeng, to_steering_vectors

#: The same sums in the same order, up to the last digits of float32.
TOLERANCE = 1e-5


@pytest.fixture
def wanted(finished, tiny, inputs):
    """Logits of one prompt with our hook at every token, BOS included."""
    steering = load_intervention(finished, "caa_mean_diff")
    ids = inputs["input_ids"][:1]
    with torch.no_grad():
        with steering.apply(tiny.model, positions="all", steer_bos=True):
            steered = tiny.model(ids).logits
        assert not torch.allclose(steered, tiny.model(ids).logits, atol=0.01)
    return steering, ids, steered


def test_steering_vectors(tiny, wanted):
    pytest.importorskip("steering_vectors", reason="steering-vectors is not installed")
    steering, ids, steered = wanted
    with torch.no_grad(), to_steering_vectors(steering).apply(tiny.model):
        found = tiny.model(ids).logits
    record("steering-vectors", steering, found, steered)


def test_repeng(tiny, wanted):
    steering, ids, steered = wanted
    try:
        vector = to_repeng(steering)
    except ConfigError as error:  # version 0.4.0 does not run with numpy 2
        pytest.skip(str(error))
    repeng = sys.modules["repeng"]
    model = repeng.ControlModel(tiny.model, [2])
    try:
        model.set_control(vector, 1.0)
        with torch.no_grad():
            found = model(ids).logits
    finally:
        model.unwrap()
    record("repeng", steering, found, steered)


def test_lm_evaluation_harness(tiny, wanted):
    hf_steered = pytest.importorskip(
        "lm_eval.models.hf_steered", reason="lm-evaluation-harness is not installed"
    )
    steering, ids, steered = wanted
    ((where, what),) = to_lm_eval(steering).items()
    added = what["steering_coefficient"] * what["steering_vector"]
    # Its hook, at the module that both files name; the CSV itself names SAEs of the hub.
    with torch.no_grad(), hf_steered.steer(tiny.model, {where: lambda acts: acts + added}):
        found = tiny.model(ids).logits
    record("lm-evaluation-harness", steering, found, steered, "lm_eval")


def record(consumer, steering, found, steered, package=None):
    difference = float((found - steered).abs().max())
    equal = torch.equal(found.argmax(-1), steered.argmax(-1))
    site = next(iter(steering.at)).hook_name
    row = Row(consumer, f"{consumer} {version(package or consumer)}", site, difference, equal)
    write_rows([row])
    assert equal and difference < TOLERANCE
