"""Tokens, padding, batches."""

from itertools import pairwise

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from steering_core.errors import DataError
from steering_core.models.tokens import (
    count_tokens,
    naming_special_tokens,
    pad,
    special_ids,
    token_batches,
    tokenize,
    tokenize_many,
)

BOS = 1


@pytest.mark.parametrize("text", ["w1 w2", "<bos> w1 w2", "<bos><bos>w1 w2", "<bos> <bos> w1 w2"])
def test_exactly_one_bos(tiny, text):
    """A chat template writes its own."""
    given = {"prepend_bos": True, "control_tokens": True}
    assert tokenize(tiny.tokenizer, [text], **given) == [[BOS, 5, 6]]
    assert count_tokens(tiny.tokenizer, [text], True, control_tokens=True) == [3]


def test_the_bos_of_a_template_is_kept_where_the_sae_wants_none(tiny):
    for text, row in (("<bos><bos> w1", [BOS, 5]), ("w1 <eos>", [5, 2])):
        given = {"prepend_bos": False, "control_tokens": True}
        assert tokenize(tiny.tokenizer, [text], **given) == [row]
        assert count_tokens(tiny.tokenizer, [text], False, control_tokens=True) == [len(row)]


@pytest.mark.parametrize("prepend_bos", [True, False])
@pytest.mark.parametrize("text", ["<bos><bos> w1", "w1 <eos>", "<pad> w1", "w1<eos>w2"])
def test_special_tokens_in_data_are_plain_text(tiny, text, prepend_bos):
    front = [BOS] if prepend_bos else []
    (row,) = tokenize(tiny.tokenizer, [text], prepend_bos=prepend_bos)
    assert row[: len(front)] == front and not {0, BOS, 2} & set(row[len(front) :])
    assert count_tokens(tiny.tokenizer, [text], prepend_bos) == [len(row)]
    (many,) = tokenize_many(tiny.tokenizer, [text], prepend_bos=prepend_bos)
    assert many.tolist() == row


def test_a_text_of_gpt2_that_ends_in_its_end_token_ends_in_plain_text(gpt2):
    text = "<|endoftext|>a fine film<|endoftext|>"
    (row,) = tokenize(gpt2.tokenizer, [text], prepend_bos=True)
    assert row.count(gpt2.tokenizer.bos_token_id) == 1 and row[0] == gpt2.tokenizer.bos_token_id
    assert gpt2.tokenizer.decode(row[1:]) == text


def _cannot_split(model, **names):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **names)


WORDS = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "a": 4, " ": 5}
PIECES = [(word, -1.0 * len(word)) for word in WORDS]
CANNOT_SPLIT = {
    "word level": models.WordLevel(WORDS, unk_token="<unk>"),
    "unigram": models.Unigram(PIECES, unk_id=3),
}


@pytest.mark.parametrize("kind", CANNOT_SPLIT)
def test_what_a_tokenizer_cannot_read_as_plain_text_is_dropped_and_counted(kind, caplog):
    names = {f"{role}_token": f"<{role}>" for role in ("bos", "pad", "eos", "unk")}
    tokenizer = _cannot_split(CANNOT_SPLIT[kind], **names)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    texts = ["a", "<bos> a", "a <eos>", "<pad>"]
    assert count_tokens(tokenizer, texts, True) == [2, 3, 3, 0]
    assert "3 of 4 texts name special tokens" in caplog.text
    assert tokenize(tokenizer, texts[:3], prepend_bos=True) == [[1, 4], [1, 5, 4], [1, 4, 5]]
    with pytest.raises(DataError, match="text 4 of 4 has no tokens"):
        tokenize(tokenizer, texts, prepend_bos=True)


def test_texts_that_name_a_special_token(tiny):
    texts = ["w1 w2", "w1<eos>", "< eos >", "<bos>"]
    assert naming_special_tokens(tiny.tokenizer, texts) == [False, True, False, True]
    assert special_ids(tiny.tokenizer) == {0, 1, 2}


def test_gpt2_gets_one_bos_and_no_end(gpt2):
    (row,) = tokenize(gpt2.tokenizer, ["a fine film"], prepend_bos=True)
    assert row.count(gpt2.tokenizer.bos_token_id) == 1 and row[0] == gpt2.tokenizer.bos_token_id
    assert gpt2.tokenizer.decode(row[1:]) == "a fine film"


def test_gemma_tokenizer_gets_one_bos(hub):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("google/gemma-2-2b")
    (row,) = tokenize(tokenizer, ["a fine film"], prepend_bos=True)
    assert row.count(tokenizer.bos_token_id) == 1 and row[0] == tokenizer.bos_token_id
    (bare,) = tokenize(tokenizer, ["a fine film"], prepend_bos=False)
    assert row[1:] == bare


def test_without_bos_nothing_is_added(tiny):
    assert tokenize(tiny.tokenizer, ["w1 w2"], prepend_bos=False) == [[5, 6]]
    assert count_tokens(tiny.tokenizer, ["w1 w2"], False) == [2]


def test_truncation_counts_bos_and_cuts_the_end(tiny):
    text = "w1 w2 w3 w4"
    assert tokenize(tiny.tokenizer, [text], prepend_bos=True, max_tokens=3) == [[BOS, 5, 6]]
    assert tokenize(tiny.tokenizer, [text], prepend_bos=False, max_tokens=3) == [[5, 6, 7]]
    assert len(tokenize(tiny.tokenizer, [text] * 2, prepend_bos=True)[1]) == 5


@pytest.mark.parametrize("text", ["", "   ", "<bos>"])
def test_a_text_without_tokens_is_refused_and_counts_zero(tiny, text):
    template = "<" in text  # in data it is text
    with pytest.raises(DataError, match="no tokens"):
        tokenize(tiny.tokenizer, ["w1", text], prepend_bos=True, control_tokens=template)
    assert count_tokens(tiny.tokenizer, [text], True, control_tokens=template) == [0]


def test_a_long_text_without_tokens_is_named_and_not_quoted_whole(tiny):
    with pytest.raises(DataError, match=r"text 2 of 3 has no tokens.*1048576 characters") as caught:
        tokenize(tiny.tokenizer, ["w1", " " * 2**20, "w2"], prepend_bos=True)
    assert len(str(caught.value)) < 200


def test_counts_are_the_lengths_that_are_tokenised(gpt2):
    texts = ["a fine film .", "dull", "an unfathomably, gloriously odd thing"]
    rows = tokenize(gpt2.tokenizer, texts, prepend_bos=True)
    assert count_tokens(gpt2.tokenizer, texts, True) == [len(row) for row in rows]


def test_many_texts_are_the_same_rows_in_one_array(tiny, monkeypatch):
    monkeypatch.setattr("steering_core.models.tokens._BLOCK", 3)
    texts = pd.Series([f"w{i} w{2 * i}" + " w7" * (i % 4) for i in range(10)]).iloc[2:]
    rows = tokenize(tiny.tokenizer, texts.tolist(), prepend_bos=True, max_tokens=4)
    many = tokenize_many(tiny.tokenizer, texts, prepend_bos=True, max_tokens=4)
    assert [row.tolist() for row in many] == rows
    assert [row.tolist() for row in many[1:3]] == rows[1:3] and many[-1].tolist() == rows[-1]
    assert many.lengths.tolist() == [len(row) for row in rows] and many[0].itemsize == 4
    assert count_tokens(tiny.tokenizer, texts, True) == [3 + (i % 4) for i in range(2, 10)]
    with pytest.raises(IndexError):
        many[8]
    assert len(tokenize_many(tiny.tokenizer, [], prepend_bos=True)) == 0
    with pytest.raises(DataError, match="text 5 of 5"):
        tokenize_many(tiny.tokenizer, ["w1"] * 4 + [""], prepend_bos=True)


def test_bos_wanted_and_absent(tiny):
    """As in sae-lens nothing is prepended; the fetch stage says so."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny.tokenizer.backend_tokenizer, pad_token="<pad>"
    )
    for prepend_bos in (True, False):
        assert tokenize(tokenizer, ["w1"], prepend_bos=prepend_bos) == [[5]]
        assert count_tokens(tokenizer, ["w1"], prepend_bos) == [1]
        batch = pad([[5], [5, 6]], tokenizer, side="left", prepend_bos=prepend_bos)
        assert not batch.bos.any()


@pytest.mark.parametrize("prepend_bos", [True, False])
@pytest.mark.parametrize("many", [tokenize, tokenize_many])
def test_rows_of_either_kind_are_padded(tiny, many, prepend_bos):
    """Rows of NumPy's numbers too."""
    rows = many(tiny.tokenizer, ["w1 w2", "w3"], prepend_bos=prepend_bos)
    batch = pad([rows[0], rows[1]], tiny.tokenizer, side="right", prepend_bos=prepend_bos)
    assert batch.bos[:, 0].tolist() == [prepend_bos] * 2 and not batch.bos[:, 1:].any()


@pytest.mark.parametrize(
    ("side", "ids", "mask", "bos"),
    [
        ("right", [[1, 5, 6], [1, 7, 0]], [[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 0, 0]]),
        ("left", [[1, 5, 6], [0, 1, 7]], [[1, 1, 1], [0, 1, 1]], [[1, 0, 0], [0, 1, 0]]),
    ],
)
def test_padding(tiny, side, ids, mask, bos):
    batch = pad([[1, 5, 6], [1, 7]], tiny.tokenizer, side=side, prepend_bos=True)
    assert batch.ids.tolist() == ids
    assert batch.mask.long().tolist() == mask
    assert batch.bos.long().tolist() == bos


def test_gpt2_mask_is_not_read_from_ids(gpt2):
    """Its pad, end and BOS tokens are one: a real BOS is kept and a pad is masked."""
    end = gpt2.tokenizer.pad_token_id
    assert end == gpt2.tokenizer.bos_token_id == gpt2.tokenizer.eos_token_id
    batch = pad([[end, 5, 6, end], [end, 7]], gpt2.tokenizer, side="left", prepend_bos=True)
    assert batch.ids.tolist() == [[end, 5, 6, end], [end, end, end, 7]]
    assert batch.mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert batch.bos.tolist() == [[True, False, False, False], [False, False, True, False]]


def test_bos_from_a_template_is_marked_even_if_the_sae_wants_none(tiny):
    batch = pad([[1, 5], [6, 7]], tiny.tokenizer, side="right", prepend_bos=False)
    assert batch.bos.tolist() == [[True, False], [False, False]]


def test_moving_moves_all(tiny):
    moved = pad([[1, 5]], tiny.tokenizer, side="left", prepend_bos=True).to(torch.device("meta"))
    assert {moved.ids.device.type, moved.mask.device.type, moved.bos.device.type} == {"meta"}


lengths = st.lists(st.integers(1, 40), max_size=40)


@given(lengths, st.integers(1, 100))
def test_batches_partition_within_the_budget(sizes, budget):
    batches = token_batches(sizes, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(sizes[i] for i in batch) <= budget


@given(lengths, st.integers(1, 100), st.randoms())
def test_batch_lengths_do_not_depend_on_order(sizes, budget, random):
    shuffled = sizes[:]
    random.shuffle(shuffled)

    def shapes(values):
        return [[values[i] for i in batch] for batch in token_batches(values, budget)]

    assert shapes(sizes) == shapes(shuffled)


@given(lengths, st.integers(1, 100))
def test_batches_are_not_needlessly_small(sizes, budget):
    """The next row never fitted into the batch before it."""
    batches = token_batches(sizes, budget)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * sizes[following[0]] > budget
