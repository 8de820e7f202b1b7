"""Reading and editing the residual stream, against TransformerLens and Hugging Face."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_families import FAMILIES, build
from transformer_lens.model_bridge import TransformerBridge

from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel, model_shape
from steering_core.models.residual_stream import edit_residual, find_places, read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import pad, tokenize


def site(layer, stream="pre"):
    return Site(layer=layer, stream=stream, centred=False, prepend_bos=True)


def every_site(lm):
    return [site(layer, stream) for layer in range(lm.shape.n_layers) for stream in ("pre", "post")]


@pytest.fixture(params=["tiny", "gpt2"])
def lm(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def batch(lm):
    texts = (
        ["a gripping and moving film .", "dull", "it never quite comes to life , sadly"]
        if lm.shape.architecture.startswith("GPT2")
        else ["w1 w2 w3 w4 w5 w6", "w9", "w10 w3 w3 w7"]
    )
    rows = tokenize(lm.tokenizer, texts, prepend_bos=True)
    return pad(rows, lm.tokenizer, side="right", prepend_bos=True)


def hooks_of(lm):
    return sum(len(b._forward_hooks) + len(b._forward_pre_hooks) for b in lm.blocks)


def test_every_site_equals_the_transformer_bridge(lm, batch):
    # A bridge rewires the modules it is given, so it gets a copy of the model of its own.
    bridge = TransformerBridge.boot_transformers(
        lm.model.name_or_path,
        hf_model=copy.deepcopy(lm.model),
        tokenizer=lm.tokenizer,
        device="cpu",
    )
    names = [s.hook_name for s in every_site(lm)]
    assert set(names) <= set(bridge.hook_dict)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(
            batch.ids, attention_mask=batch.mask.long(), names_filter=lambda name: name in names
        )
    assert set(names) <= set(cache)
    ours = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    for name in names:
        torch.testing.assert_close(
            ours[name][batch.mask], cache[name][batch.mask], rtol=1e-4, atol=1e-4
        )


def test_hidden_states_agree_except_after_the_final_norm(lm, batch):
    with torch.no_grad():
        # of a copy: transformers leaves hooks of its own on blocks it has collected states from
        states = copy.deepcopy(lm.model)(
            input_ids=batch.ids, attention_mask=batch.mask.long(), output_hidden_states=True
        ).hidden_states
    ours = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    last = lm.shape.n_layers - 1
    for layer in range(lm.shape.n_layers):
        torch.testing.assert_close(ours[site(layer, "pre").hook_name], states[layer])
        if layer < last:
            torch.testing.assert_close(ours[site(layer, "post").hook_name], states[layer + 1])
    after_norm = states[-1][batch.mask]
    assert (ours[site(last, "post").hook_name][batch.mask] - after_norm).abs().max() > 0.5


@pytest.mark.parametrize("stream", ["pre", "post"])
def test_the_pass_stops_after_the_last_site(tiny, stream):
    called = []
    modules = [*tiny.blocks, tiny.model.base_model.norm, tiny.model.get_output_embeddings()]
    handles = [
        module.register_forward_hook(lambda *_, i=i: called.append(i))
        for i, module in enumerate(modules)
    ]
    ids = torch.tensor([[1, 5, 6]])
    try:
        read = read_residuals(
            tiny, [site(0), site(2, stream)], ids, torch.ones_like(ids, dtype=torch.bool)
        )
    finally:
        for handle in handles:
            handle.remove()
    # A hook that runs after ours is not reached at the block whose output is the last site.
    assert set(called) <= {0, 1, 2} and {0, 1} <= set(called)
    assert set(read) == {"blocks.0.hook_resid_pre", f"blocks.2.hook_resid_{stream}"}


@pytest.mark.parametrize("layer", [4, 99, -1])
def test_layer_out_of_range_is_an_error_and_leaves_no_hook(tiny, layer):
    ids = torch.tensor([[1, 5]])
    before = hooks_of(tiny)
    with pytest.raises(ModelError, match=r"out of range.* 4"):
        read_residuals(tiny, [site(0), site(layer)], ids, torch.ones_like(ids, dtype=torch.bool))
    with (
        pytest.raises(ModelError, match="out of range"),
        edit_residual(tiny, site(layer), lambda x: x),
    ):
        pass
    assert hooks_of(tiny) == before


@pytest.mark.parametrize("stream", ["pre", "post"])
def test_hooks_are_removed_after_an_error_too(tiny, stream):
    class Surprise(Exception):  # noqa: N818
        pass

    def fail(residual):
        raise Surprise

    ids = torch.tensor([[1, 5]])
    before = hooks_of(tiny)  # transformers may keep some of its own
    with pytest.raises(Surprise), edit_residual(tiny, site(1, stream), fail):
        assert hooks_of(tiny) == before + 1
        tiny.model(input_ids=ids)
    assert hooks_of(tiny) == before
    with pytest.raises(Surprise), edit_residual(tiny, site(1, stream), lambda x: x):
        raise Surprise
    assert hooks_of(tiny) == before
    # A bad input inside the reading pass too: an id outside the vocabulary.
    with pytest.raises(IndexError):
        bad = torch.tensor([[9999]])
        read_residuals(tiny, [site(1, stream)], bad, torch.ones_like(bad, dtype=torch.bool))
    assert hooks_of(tiny) == before


@pytest.mark.parametrize("stream", ["pre", "post"])
def test_an_edit_changes_its_site_and_what_follows_only(lm, batch, stream):
    base = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    added = torch.randn(lm.shape.d_model, generator=torch.Generator().manual_seed(0))
    layer = 2
    with edit_residual(lm, site(layer, stream), lambda x: x + added):
        edited = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    again = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    first = layer + (stream == "post")  # the first pre site that sees the edit
    for name in base:
        at, kind = int(name.split(".")[1]), name.rsplit("_", 1)[1]
        seen = at >= first or (stream, kind, at) == ("post", "post", layer)
        assert torch.equal(base[name], again[name])
        if seen:
            assert not torch.equal(base[name], edited[name]), name
        else:
            assert torch.equal(base[name], edited[name]), name
    at_site = site(layer, stream).hook_name
    assert torch.equal(edited[at_site], base[at_site] + added)


def test_padding_does_not_reach_real_tokens(lm, batch):
    together = read_residuals(lm, every_site(lm), batch.ids, batch.mask)
    junk = batch.ids.masked_fill(~batch.mask, 17)
    with_junk = read_residuals(lm, every_site(lm), junk, batch.mask)
    for i, length in enumerate(batch.mask.sum(dim=1).tolist()):
        ids = batch.ids[i : i + 1, :length]
        alone = read_residuals(lm, every_site(lm), ids, torch.ones_like(ids, dtype=torch.bool))
        for name in together:
            torch.testing.assert_close(
                together[name][i, :length], alone[name][0], atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(together[name][i, :length], with_junk[name][i, :length])


def test_left_padding_is_refused(gpt2):
    # GPT-2's absolute positions would count the padding.
    batch = pad([[0, 5, 6], [0, 7]], gpt2.tokenizer, side="left", prepend_bos=True)
    with pytest.raises(ValueError, match="right"):
        read_residuals(gpt2, [site(0)], batch.ids, batch.mask)


def test_a_batch_on_the_cpu_asks_nothing_of_the_device(tiny):
    """A meta device has no values to wait for; eager, since sdpa looks at the mask by itself."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(tiny.model.config)  # from_config writes into it
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    lm = LanguageModel(model.to("meta").eval(), tiny.tokenizer, tiny.shape)
    batch = pad([[1, 5, 6], [1, 7]], lm.tokenizer, side="right", prepend_bos=True)
    last = torch.arange(2), batch.mask.sum(dim=1) - 1
    read = read_residuals(lm, [site(1)], batch.ids, batch.mask, last)[site(1).hook_name]
    assert (read.device.type, read.shape) == ("meta", (2, 32))


# ---------------------------------------------------------------------------- places inside a block
IDS = torch.tensor([[1, 7, 14, 21, 28], [1, 11, 12, 13, 17]])
MASK = torch.ones_like(IDS, dtype=torch.bool)
STREAMS = ("pre", "attn_out", "mid", "mlp_out", "post")
#: Families, and whether there is a stream between attention and MLP.
KNOWN = {
    **dict.fromkeys(["gpt2", "llama", "mistral", "qwen2", "qwen3", "olmo2", "phi3"], True),
    **dict.fromkeys(["gemma2", "gemma3_text", "gpt_oss", "qwen3_moe", "mixtral"], True),
    **dict.fromkeys(["gptj", "cohere", "phi"], False),
}


def inside(stream: str, layer: int = 1) -> Site:
    return Site(layer, stream, False, False)


def loaded(name: str) -> LanguageModel:
    model = build(FAMILIES[name].configuration())
    return LanguageModel(model, None, model_shape(model.config, name))


@pytest.fixture(scope="module", params=KNOWN)
def named(request) -> tuple[str, LanguageModel]:
    return request.param, loaded(request.param)


def read(lm: LanguageModel, *streams: str) -> list[torch.Tensor]:
    sites = [inside(stream) for stream in streams]
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
    with edit_residual(lm, inside("mlp_out"), lambda stream: stream + vector):
        torch.testing.assert_close(read(lm, "post")[0], post + vector)
    with edit_residual(lm, inside("attn_out"), lambda stream: stream + vector):
        steered = read(lm, "attn_out", "mlp_out", "post")
    torch.testing.assert_close(steered[0], attention + vector)
    torch.testing.assert_close(steered[2], pre + attention + vector + steered[1])
    assert torch.allclose(steered[1], mlp) is not KNOWN[name]  # the MLP reads what was added
    if KNOWN[name]:  # at mid it is the same as at the end of attention
        with edit_residual(lm, inside("mid"), lambda stream: stream + vector):
            torch.testing.assert_close(read(lm, "post")[0], steered[2])


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "llama"])
def test_places_are_those_of_transformer_lens(name, tiny, tmp_path):
    lm = loaded(name)
    lm.model.save_pretrained(tmp_path)
    names = [inside(stream).hook_name for stream in STREAMS]
    ours = read_residuals(lm, [inside(stream) for stream in STREAMS], IDS, MASK)
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
        read_residuals(lm, [replace(inside("mlp_out"), layer=9)], IDS, MASK)
