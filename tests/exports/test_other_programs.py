"""Real programs beside llama.cpp apply a vector as our hook does, where they are installed."""

import json
import sys
from importlib.metadata import version

import pytest
import torch
from render_parity import Row, write_rows

from steering_core import load_intervention
from steering_core.errors import ConfigError
from steering_core.exports.attach import FixedVector
from steering_core.exports.formats import (
    to_lm_eval,
    to_repeng,
    to_steering_vectors,
    write_lm_eval,
)
from steering_core.exports.load import LoadedIntervention

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


def test_lm_evaluation_harness(finished, tiny, tiny_model, inputs, tmp_path):
    """The model of its command line, ``--model steered``, on the exported file."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.models.hf_steered import SteeredModel

    ids = inputs["input_ids"][:1]
    for method in ("a_plan", "caa_mean_diff"):  # at two blocks, and at one
        steering, file = load_intervention(finished, method), tmp_path / f"{method}.pt"
        torch.save(to_lm_eval(steering), file)
        model = SteeredModel(str(tiny_model), str(file), device="cpu")
        with torch.no_grad(), steering.apply(tiny.model, positions="all", steer_bos=True):
            steered = tiny.model(ids).logits
        assert not torch.allclose(steered, tiny.model(ids).logits, atol=0.01)
        record("lm-evaluation-harness", steering, model._model_call(ids), steered, "lm_eval")


def test_a_task_of_lm_evaluation_harness_is_scored_under_the_vector(
    finished, tiny, tiny_model, tmp_path
):
    """Its evaluation from the name of the model to the score, as its command line runs it."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    steering = load_intervention(finished, "caa_mean_diff")
    torch.save(to_lm_eval(steering), tmp_path / "steer.pt")
    questions, choices = ["<bos> w1 w2 w3", "<bos> w9 w4"], ["w7", "w20"]
    rows = [json.dumps({"text": question}) + "\n" for question in questions]
    (tmp_path / "test.jsonl").write_text("".join(rows))
    task = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "test.jsonl")},
                           "cache_dir": str(tmp_path)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": choices,
        "doc_to_target": 0,
    }  # fmt: skip
    arguments = {"pretrained": str(tiny_model), "steer_path": str(tmp_path / "steer.pt")}
    done = lm_eval.simple_evaluate(
        "steered", arguments, tasks=[task], device="cpu", bootstrap_iters=0
    )
    found = [[pair[0] for pair in one["filtered_resps"]] for one in done["samples"]["mine"]]
    wanted = []
    with torch.no_grad(), steering.apply(tiny.model, positions="all", steer_bos=True):
        for question in questions:
            ids = tiny.tokenizer(question, return_tensors="pt")["input_ids"]
            scores = tiny.model(ids).logits[0, -1].log_softmax(-1)
            wanted.append([scores[tiny.tokenizer.vocab[choice]].item() for choice in choices])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=0, atol=1e-4)


def test_lm_evaluation_harness_reads_the_csv_of_a_feature_but_refuses_to_add_it(request, tmp_path):
    """It loads the SAE that the file names from the hub, and finds the row of the feature."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from lm_eval.models.hf_steered import SteeredModel

    gpt2_sae = request.getfixturevalue("gpt2_sae")
    row = gpt2_sae.sae.W_dec[5].detach()  # as the hub has it, of any length
    facts = {
        "method": "single_feature",
        "features": [[5, 20.0]],
        "sae": {"release": "gpt2-small-res-jb", "id": "blocks.7.hook_resid_pre"},
        "model": {"id": "gpt2", "blocks_path": "transformer.h"},
    }
    one = LoadedIntervention({gpt2_sae.site: FixedVector(20.0 * row.numpy())}, facts)
    file = tmp_path / write_lm_eval(one, tmp_path)
    ((where, found),) = SteeredModel.derive_steer_config(str(file)).items()
    assert where == "h.6"  # the input of block 7
    torch.testing.assert_close(found["steering_vector"].detach(), row)
    assert (found["action"], found["steering_coefficient"]) == ("add", 20.0)
    # Version 0.4.13 passes the SAE's bias on, and then refuses it: the export warns of that.
    with pytest.raises(AssertionError, match="Bias is not supported"):
        SteeredModel("gpt2", str(file), device="cpu")


def record(consumer, steering, found, steered, package=None):
    difference = float((found - steered).abs().max())
    equal = torch.equal(found.argmax(-1), steered.argmax(-1))
    site = ", ".join(site.hook_name for site in steering.at)
    row = Row(consumer, f"{consumer} {version(package or consumer)}", site, difference, equal)
    write_rows([row])
    assert equal and difference < TOLERANCE
