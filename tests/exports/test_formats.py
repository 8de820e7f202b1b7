"""The files of other programs: their fields, their layers, and what they refuse."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from export_world import ALPHA, DECODER, DIRECTION, UNIT, write_experiment
from gguf import GGUFReader

from steering_core import load_intervention
from steering_core.errors import ConfigError
from steering_core.exports.export import export_row
from steering_core.exports.formats import (
    UnsayableError,
    layer_map,
    model_hint,
    to_lm_eval,
    to_repeng,
    to_steering_vectors,
)
from steering_core.models.site import Site
from steering_core.storage.files import read_json, write_json


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    where = tmp_path_factory.mktemp("exports")
    return {
        method: (where / method, export_row(finished, method, where / method))
        for method in ("caa_mean_diff", "single_feature", "qp_shared", "qp_adaptive", "a_plan")
    }


def directions(file):
    return {int(t.name.split(".")[1]): t.data for t in GGUFReader(file).tensors}


def test_the_control_vector_is_that_of_llama_cpp(exported):
    where, facts = exported["caa_mean_diff"]
    reader = GGUFReader(where / facts["formats"]["llama.cpp"]["file"])
    names = ["general.architecture", "controlvector.model_hint", "controlvector.layer_count"]
    fields = [reader.get_field(name).contents() for name in names]
    assert fields == ["controlvector", "llama", 4]
    found = directions(where / "llama_cpp.gguf")
    assert found.keys() == {2} and found[2].dtype == np.float32
    np.testing.assert_allclose(found[2], ALPHA * UNIT * DIRECTION, rtol=1e-6)
    several = directions(exported["a_plan"][0] / "llama_cpp.gguf")
    np.testing.assert_allclose(several[1], 2.0 * DIRECTION, rtol=1e-6)
    np.testing.assert_allclose(several[2], 4.0 * DIRECTION, rtol=1e-6)


def test_the_model_hint_is_the_type_of_the_class():
    hints = {"LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2", "Mine": "Mine"}
    hints |= {"Gemma2ForCausalLM": "gemma2", "Qwen3MoeForCausalLM": "qwen3_moe"}
    assert {name: model_hint(name) for name in hints} == hints


@pytest.mark.parametrize(("layer", "block"), [(2, 1), (1, None), (0, None)])
def test_the_input_of_a_block_is_the_output_of_the_one_before(tmp_path, tiny_model, layer, block):
    site = Site(layer, "pre", False, True)
    where = write_experiment(tmp_path / "e", tiny_model, "all", site)
    facts = export_row(where, "caa_mean_diff", tmp_path / "out")
    if block is None:  # llama.cpp has no direction.0, and nothing before it
        assert "block 0" in facts["formats"]["llama.cpp"]["refused"]
        assert not (tmp_path / "out" / "llama_cpp.gguf").exists()
    else:
        assert directions(tmp_path / "out" / "llama_cpp.gguf").keys() == {block}
    if layer:
        lens = json.loads((tmp_path / "out" / "vllm_lens.json").read_text())
        (vector,) = lens["extra_args"]["apply_steering_vectors"]
        assert vector["layer_indices"] == [layer - 1]
    site_of = json.loads((tmp_path / "out" / "neuronpedia.json").read_text())
    assert (site_of["layerNumber"], site_of["hookType"]) == (layer, "hook_resid_pre")


def test_warnings_name_what_a_format_cannot_express(exported, caplog):
    facts = exported["caa_mean_diff"][1]
    warnings = " ".join(facts["formats"]["llama.cpp"]["warnings"])
    assert "BOS included" in warnings and "begins at the last prompt token" in warnings
    assert "can hold code" in " ".join(facts["formats"]["hotwire"]["warnings"])
    where, facts = exported["qp_adaptive"]
    for consumer in facts["formats"]:
        assert "refused" in facts["formats"][consumer], consumer
    names = {file.name for file in where.iterdir()} - {"intervention.json"}
    assert names == {"intervention.safetensors", "path.safetensors", "decoder.safetensors"}
    assert facts["operation"].startswith("solve a program again at each token")


def test_facts_name_hook_dose_model_and_sae(exported):
    facts = exported["caa_mean_diff"][1]
    (site,) = facts["sites"]
    assert site["transformer_lens"] == "blocks.2.hook_resid_post"
    assert site["transformers"] == "output of model.layers.2"
    assert site["layer_map"]["llama.cpp direction"] == 2
    assert site["added_norm"] == pytest.approx(ALPHA * UNIT)
    assert site["added_norm_relative"] == pytest.approx(ALPHA)
    assert facts["model"]["n_layers"] == 4 and facts["sae"]["revision"] == "r"
    assert facts["positions"] == "last" and facts["selected"] is True


@pytest.mark.parametrize(
    ("layer", "stream", "numbers"),
    [(2, "post", [2, 2, 3]), (2, "pre", [1, 1, 2]), (2, "mlp_out", [2, 2, 3]),
     (0, "post", [None, 0, 1]), (0, "pre", [None, None, 0]), (2, "mid", [None] * 3)],
)  # fmt: skip
def test_the_layer_map_counts_as_other_programs_do(layer, stream, numbers):
    found = layer_map(Site(layer, stream, False, True))
    assert found == dict(
        zip(("llama.cpp direction", "output of block", "input of block"), numbers, strict=True)
    )


def test_features_have_coefficients_and_links(exported):
    where, facts = exported["qp_shared"]
    with (where / "features.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    total = sum(float(row["coefficient"]) * DECODER[int(row["feature"])] for row in rows)
    (what,) = load_intervention(where).at.values()
    np.testing.assert_allclose(total, what.vector, atol=1e-8)
    assert rows[0]["link"] == f"https://www.neuronpedia.org/tiny/2-res/{rows[0]['feature']}"
    if len(rows) > 1:
        assert "one feature per hookpoint" in facts["formats"]["lm-evaluation-harness"]["refused"]


def test_lm_evaluation_harness_gets_one_feature(exported):
    where, _ = exported["single_feature"]
    with (where / "lm_eval.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["loader"], row["action"], row["hookpoint"]) == ("sae_lens", "add", "layers.2")
    assert (row["sparse_model"], row["sae_id"]) == ("a-release", "layer_2")
    assert (row["feature_index"], float(row["steering_coefficient"])) == ("3", ALPHA * UNIT)


def test_lm_evaluation_harness_gets_any_vector_as_an_object(finished, tiny, tmp_path):
    file = tmp_path / "steer.pt"
    torch.save(to_lm_eval(load_intervention(finished, "caa_mean_diff")), file)
    ((hookpoint, steering),) = torch.load(file, weights_only=True).items()
    names = dict(tiny.model.base_model.named_modules())
    assert names[hookpoint] is tiny.blocks[2]
    added = steering["steering_coefficient"] * steering["steering_vector"].numpy()
    np.testing.assert_allclose(added, ALPHA * UNIT * DIRECTION, rtol=1e-6)
    assert steering["action"] == "add" and steering["bias"] is None
    assert to_lm_eval(load_intervention(finished, "a_plan")).keys() == {"layers.1", "layers.2"}


def test_easysteer_and_neuronpedia_say_position_and_strength(exported):
    where, _ = exported["caa_mean_diff"]
    easy = json.loads((where / "easysteer.json").read_text())
    (vector,) = easy["steering"]["vectors"]
    assert vector["source"] == "llama_cpp.gguf" and vector["layers"] == [2]
    assert vector["apply"]["prompt_positions"] == [-1]
    assert exported["caa_mean_diff"][1]["formats"]["EasySteer"]["warnings"] == []
    page = json.loads((where / "neuronpedia.json").read_text())
    assert page["layerNumber"] == 3  # the input of block 3 is the output of block 2
    scaled = np.array(page["vector"]) * page["vectorDefaultSteerStrength"]
    np.testing.assert_allclose(scaled, ALPHA * UNIT * DIRECTION)


def test_easysteer_is_said_to_steer_bos_where_the_whole_prompt_is_steered(finished, tmp_path):
    where = tmp_path / "all"
    shutil.copytree(finished, where)
    config = read_json(where / "provenance.json")
    config["config"]["settings"]["positions"] = "all"
    config["config"]["model"]["sae"] |= {"id": "layer_{layer}/l0_{l0}", "l0": [7, 8, 9, 10]}
    write_json(where / "provenance.json", config)
    facts = export_row(where, "caa_mean_diff", tmp_path / "export")
    (warning,) = facts["formats"]["EasySteer"]["warnings"]
    assert "BOS included" in warning
    # The SAE's id has the L0 of its layer.
    assert facts["sae"]["id"] == "layer_2/l0_9"


@pytest.mark.parametrize(
    ("make", "package"), [(to_steering_vectors, "steering_vectors"), (to_repeng, "repeng")]
)
def test_objects_of_other_packages_need_the_package(finished, monkeypatch, make, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ConfigError, match="is not installed"):
        make(load_intervention(finished, "caa_mean_diff"))
    with pytest.raises(UnsayableError, match="another vector for each prompt"):
        make(load_intervention(finished, "qp_optimal"))
