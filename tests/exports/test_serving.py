"""Steering for each call of ``generate``, and in the parts of ``transformers serve``."""

import asyncio
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from steering_core import load_intervention
from steering_core.errors import ModelError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "exports.md"
OPTIONS = {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
GREEDY = {**OPTIONS, "do_sample": False}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("method", ["caa_mean_diff", "qp_optimal", "qp_adaptive"])
def test_custom_generate_gives_the_tokens_of_apply_and_steers_that_call_alone(
    finished, tiny, inputs, method, positions, cache
):
    steering, options = load_intervention(finished, method), {**GREEDY, "use_cache": cache}
    plain = tiny.model.generate(**inputs, **options)
    with steering.apply(tiny.model, tiny.tokenizer, positions=positions):
        wanted = tiny.model.generate(**inputs, **options)
    function = steering.custom_generate(tiny.tokenizer, positions=positions)
    found = tiny.model.generate(**inputs, **options, custom_generate=function)
    assert torch.equal(found, wanted) and not torch.equal(found, plain)
    assert torch.equal(tiny.model.generate(**inputs, **options), plain)


def test_custom_generate_samples_as_generate_does(finished, tiny, inputs):
    steering, options = load_intervention(finished, "qp_adaptive"), {**OPTIONS, "do_sample": True}
    torch.manual_seed(0)
    with steering.apply(tiny.model, tiny.tokenizer):
        wanted = tiny.model.generate(**inputs, **options)
    torch.manual_seed(0)
    function = steering.custom_generate(tiny.tokenizer)
    assert torch.equal(tiny.model.generate(**inputs, **options, custom_generate=function), wanted)


def test_what_custom_generate_cannot_decode_is_refused(finished, tiny, inputs):
    function = load_intervention(finished, "caa_mean_diff").custom_generate(tiny.tokenizer)
    for option, advice in (({"num_beams": 2}, "num_beams"), ({"prefill_chunk_size": 2}, "chunks")):
        with pytest.raises(ModelError, match=advice):
            tiny.model.generate(**inputs, **GREEDY, **option, custom_generate=function)


def test_texts_that_are_packed_into_one_row_are_refused(finished, tiny):
    steering = load_intervention(finished, "caa_mean_diff")
    packed = {"cu_seq_lens_q": torch.tensor([0, 2, 4]), "cu_seq_lens_k": torch.tensor([0, 2, 4])}
    with steering.apply(tiny.model), pytest.raises(ModelError, match="continuous batching"):
        tiny.model(torch.tensor([[1, 5, 1, 6]]), **packed)


def test_transformers_serve_answers_with_the_steered_model(finished, tiny, tiny_model):
    manager = pytest.importorskip("transformers.cli.serving.model_manager")
    from transformers.cli.serving.utils import GenerateManager

    name = f"{tiny_model}@main"
    models = manager.ModelManager(device="cpu", dtype="float32", force_model=name)
    model, tokenizer = models.load_model_and_processor(name)
    inputs = {"input_ids": torch.tensor([[1, 9, 12]]), "attention_mask": torch.ones(1, 3).long()}
    config = GenerationConfig(**GREEDY)

    def answer():
        request = GenerateManager().generate_non_streaming(model, tokenizer, inputs, config, "one")
        return asyncio.run(request)[2]

    plain, steering = answer(), load_intervention(finished, "qp_adaptive")
    with steering.apply(tiny.model, tiny.tokenizer):
        wanted = tiny.model.generate(**inputs, **GREEDY)[0, 3:]
    with ExitStack() as stack:
        stack.enter_context(steering.apply(model, tokenizer))
        assert torch.equal(answer(), wanted)
    assert torch.equal(answer(), plain) and not torch.equal(plain, wanted)


def test_the_lines_of_the_docs_run(finished, tiny, inputs, tmp_path):
    """All but those of servers, which need packages that are not installed."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    blocks = [block for block in blocks if "Serve(" not in block and "llama" not in block]
    known = {"model": tiny.model, "tokenizer": tiny.tokenizer, "texts": ["<bos> w1 w2"]}
    known["inputs"] = inputs
    for block in blocks:
        block = block.replace("results/gpt2_sst2", str(finished))
        block = block.replace('"steer.pt"', f'"{tmp_path}/steer.pt"')
        exec(block.replace("kwargs): ...", "kwargs): return input_ids"), known)
    known["stack"].close()
    assert len(blocks) >= 4 and known["steering"].facts["method"] == "qp_adaptive"
