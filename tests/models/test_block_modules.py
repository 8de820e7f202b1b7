"""Places inside a block: what attention and MLP add, and the stream between them."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_families import FAMILIES, build
from transformer_lens.model_bridge import TransformerBridge

from steering_core.errors import ModelError
from steering_core.models.block_modules import find_places
from steering_core.models.language_model import LanguageModel, model_shape
from steering_core.models.residual_stream import edit_residual, read_residuals
from steering_core.models.site import Site

IDS = torch.tensor([[1, 7, 14, 21, 28], [1, 11, 12, 13, 17]])
MASK = torch.ones_like(IDS, dtype=torch.bool)
STREAMS = ("pre", "attn_out", "mid", "mlp_out", "post")
#: Families, and whether there is a stream between attention and MLP.
KNOWN = {
    **dict.fromkeys(["gpt2", "llama", "mistral", "qwen2", "qwen3", "olmo2", "phi3"], True),
    **dict.fromkeys(["gemma2", "gemma3_text", "gpt_oss", "qwen3_moe", "mixtral"], True),
    **dict.fromkeys(["gptj", "cohere", "phi"], False),
}


def site(stream: str, layer: int = 1) -> Site:
    return Site(layer, stream, False, False)


def loaded(name: str) -> LanguageModel:
    model = build(FAMILIES[name].configuration())
    return LanguageModel(model, None, model_shape(model.config, name))


@pytest.fixture(scope="module", params=KNOWN)
def named(request) -> tuple[str, LanguageModel]:
    return request.param, loaded(request.param)


def read(lm: LanguageModel, *streams: str) -> list[torch.Tensor]:
    sites = [site(stream) for stream in streams]
    found = read_residuals(lm, sites, IDS, MASK)
    return [found[one.hook_name] for one in sites]


def test_the_stream_is_the_sum_of_what_is_added(named):
    name, lm = named
    pre, attention, mlp, post = read(lm, "pre", "attn_out", "mlp_out", "post")
    torch.testing.assert_close(pre + attention + mlp, post)
    assert min(float(attention.norm()), float(mlp.norm())) > 0
    assert find_places(lm, 1).in_turn is KNOWN[name]
    if KNOWN[name]:
        pre, attention, mid = read(lm, "pre", "attn_out", "mid")
        assert torch.equal(mid, pre + attention)
    else:
        with pytest.raises(ModelError, match="read the same stream"):
            read(lm, "mid")


def test_a_vector_at_a_place_moves_the_stream_behind_it(named):
    name, lm = named
    vector = torch.linspace(-1, 1, lm.shape.d_model)
    pre, attention, mlp, post = read(lm, "pre", "attn_out", "mlp_out", "post")
    with edit_residual(lm, site("mlp_out"), lambda stream: stream + vector):
        torch.testing.assert_close(read(lm, "post")[0], post + vector)
    with edit_residual(lm, site("attn_out"), lambda stream: stream + vector):
        steered = read(lm, "attn_out", "mlp_out", "post")
    torch.testing.assert_close(steered[0], attention + vector)
    torch.testing.assert_close(steered[2], pre + attention + vector + steered[1])
    assert torch.allclose(steered[1], mlp) is not KNOWN[name]  # the MLP reads what was added
    if KNOWN[name]:  # at mid it is the same as at the end of attention
        with edit_residual(lm, site("mid"), lambda stream: stream + vector):
            torch.testing.assert_close(read(lm, "post")[0], steered[2])


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "llama"])
def test_places_are_those_of_transformer_lens(name, tiny, tmp_path):
    lm = loaded(name)
    lm.model.save_pretrained(tmp_path)
    names = [site(stream).hook_name for stream in STREAMS]
    ours = read_residuals(lm, [site(stream) for stream in STREAMS], IDS, MASK)
    bridge = TransformerBridge.boot_transformers(
        str(tmp_path), hf_model=copy.deepcopy(lm.model), tokenizer=tiny.tokenizer, device="cpu"
    )
    with torch.no_grad():
        _, cache = bridge.run_with_cache(IDS, names_filter=lambda one: one in names)
    for one in names:
        torch.testing.assert_close(ours[one], cache[one], rtol=1e-4, atol=1e-4)


def test_modules_by_name_are_read_before_a_norm_that_follows():
    lm = loaded("gemma2")
    mlp, added = read(lm, "mlp", "mlp_out")
    block = lm.blocks[1]
    torch.testing.assert_close(block.post_feedforward_layernorm(mlp), added)
    with pytest.raises(ModelError, match="has no module mlp"):
        read(loaded("mamba"), "mlp")


def test_where_it_is_unknown_it_is_refused_and_no_hook_is_left():
    lm = loaded("mamba")
    with pytest.raises(ModelError, match="where attention and the MLP write is unknown"):
        read(lm, "mlp_out")
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())
    with pytest.raises(ModelError, match="out of range"):
        read_residuals(lm, [replace(site("mlp_out"), layer=9)], IDS, MASK)
