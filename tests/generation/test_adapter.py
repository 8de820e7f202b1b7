"""The method `lora`: a trained adapter acts as peft's own does, row by row at its scale."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from transformers import AutoModelForCausalLM

from steering_core.config.model import Model, SAESource
from steering_core.config.schema import LoraSettings
from steering_core.early_checks.fetch_stage import check_linear_modules, linear_modules
from steering_core.errors import DataError, ModelError, StorageError
from steering_core.exports.from_results import read_row
from steering_core.generation.adapter import read_adapter
from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import read_steered_method
from steering_core.generation.table import generate_method
from steering_core.methods.fixed_solutions import solve_lora
from steering_core.methods.solutions import write_solutions
from steering_core.metrics.divergence import text_divergence
from steering_core.metrics.neutral_text import cost_under
from steering_core.models.language_model import load_language_model
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.storage.arrays import save_arrays
from steering_core.storage.files import write_json
from steering_core.training.fine_tuning import fit_adapter

SITE = Site(1, "post", False, True)
SCALES = [0.0, 0.5, 2.0]
EXAMPLES = pd.DataFrame(
    {"example_id": ["a", "b", "c"], "split": "prompt", "text": ["w1 w2", "w3", "w4 w5 w6"]}
)
SETTINGS = LoraSettings(rank=2, epochs=6, learning_rate=3e-3, scales=[0.5])


def trained(tiny_model, seed=0, **changed):
    lm = load_language_model(
        Model(id=str(tiny_model), sae=SAESource(path="unused/layer_{layer}")), "cpu"
    )
    texts = tokenize(lm.tokenizer, ["w7 w8 w9 w7 w8 w9"] * 30, prepend_bos=True)
    settings = SETTINGS.model_copy(update=changed)
    return fit_adapter(lm, texts, settings, seed=seed, prepend_bos=True)


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A directory that peft reads, and the files of the method."""
    path, made = tmp_path_factory.mktemp("lora"), trained(tiny_model)
    save_arrays(path / "adapter_model.safetensors", made.weights)
    write_json(path / "adapter_config.json", made.config)
    write_solutions(solve_lora(SCALES, EXAMPLES), path / "rows")
    return path


@pytest.fixture
def files(folder):
    return {
        "solutions": str(folder / "rows"),
        "adapter": str(folder / "adapter_model.safetensors"),
        "adapter_config": str(folder / "adapter_config.json"),
    }


@pytest.fixture
def steered(files):
    how = {"positions": "last", "target_class": 1, "device": torch.device("cpu")}
    return read_steered_method("lora", files, SITE, **how)


@pytest.fixture(scope="module")
def by_peft(tiny_model, folder):
    """Log probabilities of a text by peft's own model, the adapter at a scale."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()

    def of(ids, scale):
        with torch.no_grad(), rescale_adapter_scale(model, scale):
            return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)

    return of


def test_rows_of_a_batch_act_as_peft_does_at_their_scales(tiny, files, by_peft):
    ids = tokenize(tiny.tokenizer, ["w1 w2 w3"], prepend_bos=True)[0]
    adapter = read_adapter(files["adapter"], files["adapter_config"])
    with torch.no_grad():
        plain = tiny.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        with adapter.at(np.array(SCALES)).acting(tiny):
            logits = tiny.model(torch.tensor([ids] * 3)).logits.double().log_softmax(-1)
        again = tiny.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    for found, scale in zip(logits, SCALES, strict=True):
        torch.testing.assert_close(found, by_peft(ids, scale), atol=1e-4, rtol=1e-4)
    assert torch.equal(plain, again) and (logits[2] - plain).abs().max() > 0.1
    torch.testing.assert_close(logits[0], plain, atol=1e-5, rtol=1e-5)


def test_texts_are_those_of_peft_and_kl_is_to_the_model_without_the_adapter(tiny, steered, by_peft):
    table = generate_method(tiny, EXAMPLES, steered, Sampling(4, None), max_tokens=20, batch_size=2)
    found = text_divergence(tiny, table, steered, batch_tokens=30)
    assert table["strength"].tolist() == np.repeat(SCALES, 3).tolist()
    assert set(table["strength_name"]) == {"scale"} and table["text"].notna().all()
    for row, got in zip(table.itertuples(), found.itertuples(), strict=True):
        ids, start = [*row.prompt_tokens, *row.new_tokens], len(row.prompt_tokens) - 1
        after, base = by_peft(ids, row.strength), by_peft(ids, 0.0)
        assert after[start:-1].argmax(-1).tolist() == row.new_tokens
        kl = (after.exp() * (after - base)).sum(-1)[start:-1].sum()
        assert got.kl_sum == pytest.approx(float(kl), rel=5e-3, abs=1e-3)
    assert found["kl_sum"].iloc[-1] > 0.1


def test_it_has_no_size_and_acts_on_neutral_text_at_its_selected_scale(tiny, files, tmp_path):
    rows = pd.read_parquet(files["solutions"])
    assert rows[["l0", "l1", "residual_norm"]].isna().all(axis=None)
    assert rows["status"].eq("fixed").all()
    pareto = {"method": "lora", "selected": [False, False, True], "strength": SCALES}
    nothing = dict.fromkeys(("tau", "lam", "epsilon"), np.nan)
    pd.DataFrame({**pareto, **nothing}).to_csv(tmp_path / "pareto.csv", index=False)
    found = cost_under(
        tiny,
        pd.DataFrame({"example_id": ["x", "y"], "text": ["w1 w2 w3 w4", "w5 w6 w7"]}),
        {**files, "pareto": str(tmp_path / "pareto.csv")},
        "lora",
        site=SITE,
        target_class=1,
        max_tokens=16,
        batch_tokens=64,
    )
    assert found["status"].eq("ok").all() and (found["kl_sum"] > 0).all()
    assert found["n_added"].isna().all()


def test_training_learns_the_texts_and_gives_the_same_weights_again(tiny_model):
    one, two, other = trained(tiny_model), trained(tiny_model), trained(tiny_model, seed=1)
    assert np.mean(one.losses[-10:]) < 0.7 * np.mean(one.losses[:5])
    assert one.weights.keys() == two.weights.keys()
    assert all(np.array_equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert any(not np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_only_the_named_modules_change(tiny_model):
    made = trained(tiny_model, epochs=1, modules=["q_proj", "v_proj"])
    assert {name.split(".")[-3] for name in made.weights} == {"q_proj", "v_proj"}
    assert made.config["target_modules"] == ["q_proj", "v_proj"]
    with pytest.raises(ModelError, match=r"lora\.modules: .*c_attn"):
        trained(tiny_model, modules=["c_attn"])


def test_a_module_that_the_model_lacks_is_known_from_its_configuration(tiny):
    names = linear_modules(tiny.model.config)
    assert "model.layers.0.self_attn.q_proj" in names and "lm_head" not in names
    check_linear_modules(tiny.model.config, "all-linear")
    check_linear_modules(tiny.model.config, ["layers.1.mlp.up_proj", "q_proj"])
    with pytest.raises(ModelError, match=r"no linear module 'q_pro' \(did you mean 'q_proj'\?\)"):
        check_linear_modules(tiny.model.config, ["q_pro"])


def test_an_export_says_how_peft_loads_it(tmp_path):
    with pytest.raises(DataError, match=r"peft\.PeftModel\.from_pretrained\(model, .*/lora'"):
        read_row(tmp_path, "lora")


def test_an_adapter_of_another_model_is_refused(tiny, files, tmp_path):
    adapter = read_adapter(files["adapter"], files["adapter_config"])
    pairs = {"model.layers.9.mlp.up_proj": next(iter(adapter.pairs.values()))}
    acting = replace(adapter, pairs=pairs).at(np.ones(1)).acting(tiny)
    with pytest.raises(ModelError, match="which the model does not have"), acting:
        pass
    save_arrays(tmp_path / "half", {"base_model.model.a.lora_A.weight": np.ones((1, 2))})
    with pytest.raises(StorageError, match="no LoRA adapter"):
        read_adapter(tmp_path / "half", files["adapter_config"])
