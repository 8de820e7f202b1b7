"""Fast equals slow for GPT-2, Gemma-2 and Llama: the same greedy tokens, however steered.

Slow is batch 1, no cache, no padding, eager attention, and a solve at every position.
"""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from steered_generation import continuations
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.decode import continue_batch, end_tokens
from steering_core.generation.intervention import (
    Intervention,
    RowVectors,
    steer,
    steered_positions,
)
from steering_core.generation.sampling import Sampling
from steering_core.models.language_model import LanguageModel, model_shape
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import pad, tokenize
from steering_core.optimize.path import SteeringPath

D_MODEL, NEW, TAU = 32, 8, 4.0
SITES = [Site(1, "pre", True, True), Site(2, "post", False, True)]
NAMES = [f"e{i}" for i in range(5)]
GREEDY = Sampling(new_tokens=NEW, temperature=None)
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = 0.4 * RNG.standard_normal(D_MODEL)
VECTORS = 3 * RNG.standard_normal((2, len(NAMES), D_MODEL))
_IDS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_WIDE = {
    "hidden_size": D_MODEL, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, **_IDS,
}  # fmt: skip
FAMILIES = {
    "gpt2": (
        GPT2Config(n_embd=D_MODEL, n_layer=4, n_head=4, n_positions=64, **_IDS),
        GPT2LMHeadModel,
        "sdpa",
    ),
    # Windows shorter than the texts, and caps low enough to bend scores and logits.
    "gemma2": (
        Gemma2Config(
            **_WIDE,
            query_pre_attn_scalar=8,
            sliding_window=4,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=2.0,
        ),
        Gemma2ForCausalLM,
        "eager",  # sdpa would drop the cap of the scores
    ),
    "llama": (LlamaConfig(**_WIDE), LlamaForCausalLM, "sdpa"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny):
    """(the model as the pipeline loads it, the same weights with eager attention)."""
    config, kind, attention = FAMILIES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    assert model.config._attn_implementation == attention
    eager = kind._from_config(model.config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    assert eager.config._attn_implementation == "eager"
    shape = model_shape(model.config, request.param)
    return LanguageModel(model, tiny.tokenizer, shape), LanguageModel(eager, tiny.tokenizer, shape)


@pytest.fixture(scope="module")
def prompts(tiny):
    texts = [" ".join(f"w{7 * k + n}" for k in range(n)) for n in (2, 7, 1, 4, 3)]
    return tokenize(tiny.tokenizer, texts, prepend_bos=True)


def slowly(lm, prompt, edits):
    """One row by whole passes; ``edits`` maps a site to what it adds to the residual at k."""
    tokens, start = list(prompt), len(prompt) - 1

    def hook(add):
        def edit(residual):
            steered = residual.clone()
            for k in range(max(start, 1), residual.shape[1]):  # BOS is at 0
                steered[0, k] += add(residual[0, k])
            return steered

        return edit

    with ExitStack() as stack, torch.no_grad():
        for site, add in edits.items():
            stack.enter_context(edit_residual(lm, site, hook(add)))
        while len(tokens) < len(prompt) + NEW:
            logits = lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
            if tokens[-1] in end_tokens(lm):
                break
    return tokens[len(prompt) :]


def test_a_vector_for_each_prompt_at_two_sites(family, prompts):
    lm, eager = family
    batch = pad(prompts, lm.tokenizer, side="left", prepend_bos=True)
    vectors = torch.tensor(VECTORS, dtype=torch.float32)
    at = {site: RowVectors(own) for site, own in zip(SITES, VECTORS, strict=True)}
    with steer(lm, Intervention(at), steered_positions(batch, "last")):
        got = continue_batch(lm, batch, NEW, [])
    expected = [
        slowly(
            eager,
            prompt,
            {site: lambda h, v=vectors[s, i]: v for s, site in enumerate(SITES)},
        )
        for i, prompt in enumerate(prompts)
    ]
    assert got == expected
    assert got != [slowly(eager, prompt, {}) for prompt in prompts]


@pytest.mark.parametrize("site", SITES, ids=lambda s: s.hook_name)
@pytest.mark.parametrize(("program", "parameter"), [("qp", 0.7), ("socp", 30.0)])
def test_a_new_optimum_at_every_token(family, prompts, site, program, parameter):
    lm, eager = family
    path = SteeringPath.fit(DECODER, WEIGHT).extend(np.inf)
    whole = np.full(len(prompts), 1.0)

    def add(h):
        seen = site.view(h.numpy().astype(np.float64))
        found = getattr(path, program)(TAU - seen @ WEIGHT, parameter)
        assert found.solved[0]
        return torch.tensor(found.vector[0]).to(h.dtype)

    solver = AdaptiveSolver(path, WEIGHT, 0.0, program, site, lm.device)
    got = continuations(
        lm, prompts, NAMES, GREEDY, site=site, batch_size=3,
        adaptive=RowPrograms(solver, TAU * whole, parameter * whole),
    ).tokens  # fmt: skip
    assert got == [slowly(eager, prompt, {site: add}) for prompt in prompts]
    assert got != [slowly(eager, prompt, {}) for prompt in prompts]
