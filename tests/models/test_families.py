"""Every family of models is steered as a plain forward pass with hooks would, or refused early.

Slow is one prompt at a time by whole passes: no cache, no padding, a solve at every position.
"""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from steered_generation import continuations, divergence
from tiny_families import FAMILIES, build, row, rows_on_page, shape_or_refusal
from transformers import AutoModelForImageTextToText, BertLMHeadModel

from steering_core.config.model import Model, SAESource
from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.batching import cache_bytes
from steering_core.generation.sampling import Sampling
from steering_core.models.head import check_head
from steering_core.models.language_model import LanguageModel, load_language_model, load_shape
from steering_core.models.residual_stream import check_blocks, edit_residual, read_residuals
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath

D_MODEL, N_LAYERS, NEW, TAU, LAM = 32, 4, 4, 4.0, 0.7
#: The last block but one is among those of Gemma 4 that share keys and values.
EARLY, LATE = Site(1, "pre", True, True), Site(2, "post", False, True)
SAE = SAESource(path="unused/layer_{layer}")
GREEDY = Sampling(new_tokens=NEW, temperature=None)
PROMPTS = [[1, 7, 14, 21, 28, 35, 42, 49, 56, 63], [1, 11], [1, 5, 17, 29]]
NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(0)
VECTORS = 3 * RNG.standard_normal((len(PROMPTS), D_MODEL))
DECODER = RNG.standard_normal((40, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = 0.4 * RNG.standard_normal(D_MODEL)


#: Which families are refused, and a part of the reason.
REFUSED = {
    "gemma3n_text": "several streams in parallel",
    "gemma3n": "several streams in parallel",
    "mistral3": "no causal language model from a Mistral3Config",
    "qwen3_vl": "no causal language model from a Qwen3VLConfig",
    "bert": "a masked language model",
    "t5": "no causal language model from a T5Config",
}
RUNNING = [name for name in FAMILIES if name not in REFUSED]


@pytest.fixture(scope="module")
def path():
    return SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)


def hooked(lm, ids, layers):
    """Inputs and outputs of blocks by hooks of the test's own."""
    seen = {}

    def before(layer):
        return lambda _, args, kwargs: seen.update(
            {f"blocks.{layer}.hook_resid_pre": args[0] if args else kwargs["hidden_states"]}
        )

    def after(layer):
        return lambda _, __, output: seen.update(
            {f"blocks.{layer}.hook_resid_post": output[0] if isinstance(output, tuple) else output}
        )

    with ExitStack() as stack, torch.no_grad():
        for layer in layers:
            block = lm.model.get_submodule(lm.shape.blocks_path)[layer]
            pre = block.register_forward_pre_hook(before(layer), with_kwargs=True)
            for handle in (pre, block.register_forward_hook(after(layer))):
                stack.callback(handle.remove)
        logits = lm.model(input_ids=ids, use_cache=False).logits
    return seen, logits


def slowly(lm, prompt, site, add, positions="last"):
    """One prompt by whole passes; ``add`` maps the residual at a position to what is added."""
    tokens, start = list(prompt), len(prompt) - 1 if positions == "last" else 1

    def edit(residual):
        steered = residual.clone()
        for k in range(start, residual.shape[1]):
            steered[0, k] += add(residual[0, k])
        return steered

    with edit_residual(lm, site, edit), torch.no_grad():
        while len(tokens) < len(prompt) + NEW:
            logits = lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
            if tokens[-1] == 2:
                break
    return tokens[len(prompt) :]


def loaded(name, tiny):
    """The family's model as the pipeline has it."""
    shape = shape_or_refusal(name)
    model = build(FAMILIES[name].configuration())
    assert (shape.n_layers, shape.d_model) == (N_LAYERS, D_MODEL)
    assert shape.architecture == type(model).__name__
    return LanguageModel(model, tiny.tokenizer, shape)


def check_files(name, shape, tmp_path):
    """The configuration alone says what the model says, before there are weights."""
    FAMILIES[name].configuration().save_pretrained(tmp_path)
    assert load_shape(Model(id=str(tmp_path), sae=SAE)) == shape


def check_reading(lm):
    """What is read equals what plain hooks see; an edit leaves earlier layers as they are."""
    ids = torch.tensor([PROMPTS[0]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    sites = [
        Site(layer, stream, False, True) for layer in range(N_LAYERS) for stream in ("pre", "post")
    ]
    read = read_residuals(lm, sites, ids, mask)
    seen, _ = hooked(lm, ids, range(N_LAYERS))
    assert set(seen) == set(read)
    assert all(torch.equal(read[site], seen[site]) for site in seen)
    with edit_residual(lm, LATE, lambda residual: residual + 1.0):
        steered = read_residuals(lm, sites, ids, mask)
    for site in sites:
        earlier = (site.layer, site.stream == "post") < (LATE.layer, True)
        assert torch.equal(read[site.hook_name], steered[site.hook_name]) == earlier, site


def check_generation(lm, path):
    """Batched, padded on the left and with a cache: the same tokens as one by one without."""
    solver = AdaptiveSolver(path, WEIGHT, 0.0, "qp", LATE, lm.device)
    plan = RowPrograms(solver, np.full(3, TAU), np.full(3, LAM))

    def optimum(h):
        found = path.qp(TAU - h.numpy().astype(np.float64) @ WEIGHT, LAM)
        return torch.tensor(found.vector[0]).to(h.dtype)

    def fast(site, **steering):
        return continuations(lm, PROMPTS, NAMES, GREEDY, site=site, **steering).tokens

    def slow(site, add, **where):
        return [slowly(lm, prompt, site, add(i), **where) for i, prompt in enumerate(PROMPTS)]

    plain = fast(EARLY)
    assert plain == slow(EARLY, lambda i: lambda h: 0 * h)
    vector = lambda i: lambda h: torch.tensor(VECTORS[i], dtype=h.dtype)  # noqa: E731
    differ = False
    for site, positions in ((EARLY, "last"), (LATE, "last"), (LATE, "all")):
        steered = fast(site, vectors=VECTORS, positions=positions)
        assert steered == slow(site, vector, positions=positions), (site, positions)
        differ |= steered != plain
    assert differ
    assert fast(LATE, adaptive=plan, positions="all") == slow(
        LATE, lambda i: optimum, positions="all"
    )


def check_divergence(lm):
    """KL of a zero vector is 0; of another it is that of the logits of two plain passes."""
    texts = [[3, 9, 27], [4], [8, 16]]
    none = divergence(lm, PROMPTS, texts, site=LATE, vectors=np.zeros_like(VECTORS))
    assert none.kl_sum.tolist() == [0.0] * 3
    found = divergence(lm, PROMPTS, texts, site=LATE, vectors=VECTORS / 3)
    for i, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        ids, last = torch.tensor([[*prompt, *text]]), len(prompt) - 1
        added = torch.tensor(VECTORS[i] / 3, dtype=torch.float32)

        def edit(residual, added=added, last=last):
            return torch.cat([residual[:, :last], residual[:, last:] + added], dim=1)

        _, base = hooked(lm, ids, [])
        with edit_residual(lm, LATE, edit):
            _, steered = hooked(lm, ids, [])
        p, q = (x[0, last:-1].double().log_softmax(-1) for x in (steered, base))
        expected = float((p.exp() * (p - q)).sum())
        assert expected > 1e-4, expected
        assert found.kl_sum[i] == pytest.approx(expected, rel=2e-3, abs=1e-4)
        surprise = -q.gather(1, torch.tensor(text)[:, None]).sum()
        assert found.base_nll_sum[i] == pytest.approx(float(surprise), rel=1e-4)


def check_cache(lm):
    """As many bytes as the cache holds; more only where a window or a block has cut it."""
    for width in (5, 20):
        output = lm.model(input_ids=torch.full((2, width), 5), use_cache=True)
        cache = output.past_key_values if "past_key_values" in output else output.cache_params
        held = sum(
            tensor.nbytes
            for layer in cache.layers
            for part in vars(layer).values()
            for tensor in (part.values() if isinstance(part, dict) else [part])
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1
        )
        counted = 2 * cache_bytes(lm, width)
        assert counted == held if width == 5 else counted >= held


@pytest.mark.parametrize("name", RUNNING)
def test_a_family_runs_as_plain_passes_would(name, tiny, path, tmp_path):
    lm = loaded(name, tiny)
    check_files(name, lm.shape, tmp_path)
    check_blocks(lm)
    check_head(lm)
    check_reading(lm)
    check_generation(lm, path)
    check_divergence(lm)
    check_cache(lm)
    lm.model.to(torch.bfloat16)
    check_blocks(lm)
    check_head(lm)
    fast = continuations(lm, PROMPTS, NAMES, GREEDY, site=EARLY, vectors=VECTORS)
    assert all(fast.tokens)


def test_what_does_not_run_is_refused_by_its_configuration_alone(tmp_path):
    found = {name: shape_or_refusal(name) for name in FAMILIES}
    refused = {name: why for name, why in found.items() if isinstance(why, str)}
    assert refused.keys() == REFUSED.keys()
    for name, why in refused.items():
        assert REFUSED[name] in why
        FAMILIES[name].configuration().save_pretrained(tmp_path / name)
        with pytest.raises(ModelError, match=REFUSED[name]):
            load_shape(Model(id=str(tmp_path / name), sae=SAE))


def test_the_table_in_the_docs_is_what_the_code_says():
    assert rows_on_page() == [row(name) for name in FAMILIES], (
        "renew it: python tests/models/tiny_families.py"
    )


@pytest.mark.parametrize("name", [name for name in RUNNING if FAMILIES[name].text])
def test_a_checkpoint_with_images_is_loaded_with_the_weights_of_its_text_model(
    name, tiny, tmp_path
):
    whole = build(FAMILIES[name].configuration(), AutoModelForImageTextToText)
    whole.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    lm = load_language_model(Model(id=str(tmp_path), sae=SAE), "cpu")
    assert lm.shape == shape_or_refusal(name)
    assert len(lm.blocks) == N_LAYERS
    check_blocks(lm)
    check_head(lm)
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        expected = whole(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(hooked(lm, ids, [])[1], expected, rtol=1e-4, atol=1e-4)


def test_weights_that_the_files_lack_are_not_made_up(tiny_model, tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .*layers\.2\.mlp\.up_proj"):
        load_language_model(Model(id=str(tmp_path), sae=SAE), "cpu")


def test_a_stream_of_another_shape_is_refused_where_it_is_first_read(tiny):
    model = build(FAMILIES["gemma3n_text"].configuration())
    shape = replace(tiny.shape, n_layers=N_LAYERS, d_model=D_MODEL, architecture="Gemma3n")
    lm = LanguageModel(model, tiny.tokenizer, shape)
    with pytest.raises(ModelError, match=r"hook_resid_p\w+ is of shape \(2, 1, 2, 32\)"):
        check_blocks(lm)


def test_a_model_whose_tokens_see_those_after_them_is_refused(tiny):
    model = BertLMHeadModel(FAMILIES["bert"].configuration()).eval()
    shape = replace(tiny.shape, blocks_path="bert.encoder.layer", architecture="Bert")
    with pytest.raises(ModelError, match="Bert: a token changes the stream at an earlier token"):
        check_blocks(LanguageModel(model, tiny.tokenizer, shape))
