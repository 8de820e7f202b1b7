"""Loading language models: shapes, tokenizers, decoding defaults."""

import copy

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BioGptConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaForCausalLM,
    MistralConfig,
    PersimmonConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

from steering_core.config.model import Model, SAESource
from steering_core.errors import ConfigError, ModelError
from steering_core.models.devices import choose_device
from steering_core.models.head import check_head
from steering_core.models.language_model import load_language_model, load_shape, model_shape
from steering_core.models.residual_stream import check_blocks, read_residuals
from steering_core.models.site import Site

SAE = SAESource(path="{layer}")


def test_shape_of_the_configuration_is_that_of_the_model(tiny, tiny_model):
    assert load_shape(Model(id=str(tiny_model), sae=SAE)) == tiny.shape
    assert (tiny.shape.n_layers, tiny.shape.d_model, tiny.shape.context) == (4, 32, 64)
    assert tiny.blocks is tiny.model.model.layers


def test_hub_shapes(hub):
    gemma = load_shape(Model(id="google/gemma-2-2b", sae=SAE))
    assert (gemma.n_layers, gemma.d_model) == (26, 2304)
    # The tuned model's id is an alias of it on the hub and goes the same way.
    assert load_shape(Model(id="google/gemma-2-2b-it", sae=SAE)) == gemma


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
ARCHITECTURES = {
    "GPT2LMHeadModel": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40),
    "GPTNeoXForCausalLM": GPTNeoXConfig(**SMALL, intermediate_size=32),
    "MistralForCausalLM": MistralConfig(**SMALL, intermediate_size=32, num_key_value_heads=2),
    "Qwen2ForCausalLM": Qwen2Config(**SMALL, intermediate_size=32, num_key_value_heads=2),
    "Gemma2ForCausalLM": Gemma2Config(
        **SMALL, intermediate_size=32, num_key_value_heads=2, head_dim=8
    ),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_are_found_in_other_architectures(architecture, tiny):
    config = ARCHITECTURES[architecture]
    config.architectures = [architecture]
    model = AutoModelForCausalLM.from_config(config).eval()
    assert type(model).__name__ == architecture
    shape = model_shape(config, architecture)
    lm = type(tiny)(model, tiny.tokenizer, shape)
    assert (shape.n_layers, shape.d_model, len(lm.blocks)) == (2, 16, 2)
    ids = torch.tensor([[1, 2, 3]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    sites = [Site(1, "pre", False, True), Site(1, "post", False, True)]
    read = read_residuals(lm, sites, ids, mask)
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(read["blocks.1.hook_resid_pre"], states[1])
    assert read["blocks.1.hook_resid_post"].shape == (1, 3, 16)


UNKNOWN = {
    "BioGptForCausalLM": BioGptConfig(**SMALL, intermediate_size=32),
    "PersimmonForCausalLM": PersimmonConfig(**SMALL, intermediate_size=32),
}


@pytest.mark.parametrize("architecture", UNKNOWN)
def test_blocks_are_found_where_transformer_lens_has_no_adapter(architecture, tiny):
    config = UNKNOWN[architecture]
    config.architectures = [architecture]
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    shape = model_shape(config, "some/model")
    assert (shape.n_layers, shape.d_model, shape.architecture) == (2, 16, architecture)
    assert shape.context == config.max_position_embeddings
    lm = type(tiny)(model, tiny.tokenizer, shape)
    check_blocks(lm)
    check_head(lm)


def test_blocks_that_do_not_follow_one_another_are_refused(tiny):
    check_blocks(tiny)
    model = copy.deepcopy(tiny.model)
    model.model.layers[2].register_forward_pre_hook(lambda _, args: (2 * args[0], *args[1:]))
    with pytest.raises(ModelError, match="block 2 does not read what block 1 writes"):
        check_blocks(type(tiny)(model, tiny.tokenizer, tiny.shape))


@pytest.mark.parametrize(
    ("weight", "check", "message"),
    [
        ("model.layers.1.mlp.down_proj.weight", check_blocks, "block 1 writes NaN.*float32"),
        ("model.norm.weight", check_head, "its logits are NaN.*float32"),
    ],
)
def test_nan_in_the_weights_is_reported_as_such(tiny, weight, check, message):
    model = copy.deepcopy(tiny.model)
    model.get_parameter(weight).fill_(float("nan"))
    with pytest.raises(ModelError, match=message):
        check(type(tiny)(model, tiny.tokenizer, tiny.shape))


def test_an_architecture_without_a_decoder_stack_is_refused():
    config = T5Config(num_layers=2, d_model=16)
    config.architectures = ["T5ForConditionalGeneration"]
    with pytest.raises(ModelError, match="some/t5"):
        model_shape(config, "some/t5")
    config = AutoConfig.for_model("distilbert")
    config.architectures = ["DistilBertForMaskedLM"]
    with pytest.raises(ModelError, match="DistilBert"):
        model_shape(config, "some/classifier")


def test_weights_need_no_gradient_and_are_in_eval_mode(tiny):
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_dtype_is_the_configured_one(tiny_model):
    lm = load_language_model(Model(id=str(tiny_model), sae=SAE, dtype="bfloat16"), "cpu")
    assert lm.dtype == torch.bfloat16


def test_decoding_habits_of_the_repository_are_left_behind(tiny_model, tmp_path):
    """A repetition penalty, beams or no cache would change texts without a word."""
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    model.generation_config.repetition_penalty = 1.7
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.3
    model.generation_config.top_k = 3
    model.generation_config.use_cache = False
    model.generation_config.eos_token_id = [2, 9]
    model.save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    config = load_language_model(
        Model(id=str(tmp_path / "model"), sae=SAE), "cpu"
    ).model.generation_config
    assert config.eos_token_id == [2, 9]
    for habit in ("repetition_penalty", "temperature", "top_k", "use_cache", "do_sample"):
        assert getattr(config, habit) in (None, {"use_cache": True}.get(habit)), habit


def test_a_tokenizer_without_pad_takes_the_end_token(gpt2):
    assert gpt2.tokenizer.pad_token_id == gpt2.tokenizer.eos_token_id is not None


def test_a_tokenizer_without_pad_and_end_is_refused(tiny_model, tmp_path):
    LlamaForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
    raw = PreTrainedTokenizerFast.from_pretrained(tiny_model)
    PreTrainedTokenizerFast(tokenizer_object=raw.backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="neither a pad nor an end token"):
        load_language_model(Model(id=str(tmp_path), sae=SAE), "cpu")


def test_an_absent_device_is_a_config_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="cuda is not available"):
        choose_device("cuda")
