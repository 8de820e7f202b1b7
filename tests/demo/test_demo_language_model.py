import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core.demo.language_model import read_texts, train_language_model
from steering_core.errors import DataError


def test_directory_holds_a_hugging_face_model(demo_model_dir):
    names = {path.name for path in demo_model_dir.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    config = json.loads((demo_model_dir / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (16, 2)


def test_tokenizer_adds_bos_pads_left_and_gives_the_text_back(demo_model_dir, demo_corpus):
    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir)
    texts = read_texts(demo_corpus)[:20]
    encoded = tokenizer(texts, padding=True)
    assert tokenizer.padding_side == "left"
    for text, ids, mask in zip(texts, encoded["input_ids"], encoded["attention_mask"], strict=True):
        assert tokenizer.unk_token_id not in ids
        assert ids[mask.index(1)] == tokenizer.bos_token_id
        assert len(ids) - mask.index(1) == 1 + len(text.split())
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_bridge_equals_the_hugging_face_model(demo_model_dir, demo_corpus):
    model = AutoModelForCausalLM.from_pretrained(demo_model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir)
    bridge = TransformerBridge.boot_transformers(str(demo_model_dir), device="cpu")
    ids = tokenizer(read_texts(demo_corpus)[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(bridge(ids), model(ids).logits, atol=1e-4, rtol=1e-4)
    assert "blocks.1.hook_resid_post" in bridge.hook_dict


def test_same_arguments_same_bytes(demo_model_dir, demo_corpus, tmp_path, tiny_settings):
    train_language_model(demo_corpus, tmp_path / "again", **tiny_settings, seed=1)
    train_language_model(demo_corpus, tmp_path / "other", **tiny_settings, seed=2)
    for path in demo_model_dir.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    weights = [d / "model.safetensors" for d in (demo_model_dir, tmp_path / "other")]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_training_lowers_the_loss(demo_corpus, tmp_path, tiny_settings):
    longer = tiny_settings | {"n_steps": 120}
    loss = train_language_model(demo_corpus, tmp_path / "model", **longer, seed=0)
    n_words = len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert loss < math.log(n_words) - 0.8


def test_training_leaves_the_global_generator_alone(demo_corpus, tmp_path, tiny_settings):
    before = torch.get_rng_state()
    train_language_model(demo_corpus, tmp_path / "model", **tiny_settings | {"n_steps": 1}, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_document_longer_than_the_context_is_an_error(demo_corpus, tmp_path, tiny_settings):
    with pytest.raises(DataError, match="context_size"):
        train_language_model(
            demo_corpus, tmp_path / "model", **tiny_settings | {"context_size": 8}, seed=0
        )
    assert not (tmp_path / "model").exists()


def test_bad_corpora_are_errors(tmp_path):
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no column 'text'"):
        read_texts(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no text"):
        read_texts([tmp_path / "b.parquet"])


def test_width_that_does_not_fit_the_heads_is_refused(demo_corpus, tmp_path):
    with pytest.raises(ValueError, match="d_model"):
        train_language_model(demo_corpus, tmp_path / "model", d_model=18, n_heads=4)
