"""Judges that run a model of the hub."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steering_core.errors import ModelError
from steering_core.metrics import classifiers
from steering_core.metrics.classifiers import Similarity, TextClassifier

SENTIMENT = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


@pytest.fixture(scope="module")
def sentiment(hub):
    return TextClassifier(SENTIMENT, "POSITIVE", device="cpu")


@pytest.fixture(scope="module")
def sst2(hub):
    from datasets import load_dataset

    return load_dataset("stanfordnlp/sst2", split="validation").to_pandas().iloc[:200]


def test_sentiment_knows_the_rows(sentiment, sst2):
    scores = sentiment.score(sst2["sentence"].tolist())
    assert scores.shape == (200,) and ((scores >= 0) & (scores <= 1)).all()
    assert ((scores > 0.5) == sst2["label"]).mean() > 0.7


def test_the_other_label_is_the_complement(hub, sentiment, sst2):
    texts = sst2["sentence"].tolist()[:20]
    other = TextClassifier(SENTIMENT, "negative", device="cpu")  # case does not matter
    np.testing.assert_allclose(other.score(texts) + sentiment.score(texts), 1, atol=1e-5)


def test_scores_do_not_depend_on_the_batch(sentiment, sst2):
    texts = sst2["sentence"].tolist()[:40]  # more than one batch
    alone = np.concatenate([sentiment.score([text]) for text in texts[28:36]])
    np.testing.assert_allclose(sentiment.score(texts)[28:36], alone, atol=1e-5)
    assert sentiment.score([]).shape == (0,)


def test_long_and_empty_texts(sentiment):
    scores = sentiment.score(["a fine film " * 2000, "", " ...\n"])
    assert 0 <= scores[0] <= 1 and np.isnan(scores[1:]).all()


def test_a_text_may_name_the_special_tokens(sentiment):
    """A judge that took them for its own would read two texts."""
    seen = []
    handle = sentiment.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"][0].tolist()), with_kwargs=True
    )
    sentiment.score(["a fine [SEP] film [PAD][CLS]"])
    handle.remove()
    tokenizer = sentiment.tokenizer
    assert seen[0].count(tokenizer.sep_token_id) == seen[0].count(tokenizer.cls_token_id) == 1
    words = seen[0].index(tokenizer.sep_token_id)
    assert tokenizer.pad_token_id not in seen[0][:words]


def test_toxicity_labels_are_independent(hub):
    judge = TextClassifier("unitary/toxic-bert", "toxic", device="cpu")
    texts = ["you are a stupid idiot", "what a lovely day", "the meeting is at noon"]
    scores = judge.score(texts)
    batch = judge.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = judge.model(**batch).logits
    assert judge.model.config.num_labels > 2
    np.testing.assert_allclose(scores, logits.sigmoid()[:, judge.label], atol=1e-5)
    assert abs(scores - logits.softmax(-1)[:, judge.label].numpy()).max() > 0.01
    assert scores[0] > scores[1:].max()


def test_one_label_is_a_probability_too(tiny_model, tmp_path):
    """A softmax over one label would call every text certain."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(tiny_model, num_labels=1, id2label={0: "toxic"})
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    scores = TextClassifier(str(tmp_path), "toxic", device="cpu").score(["w1 w2", "w3", "w50 w51"])
    assert scores.max() < 1 and len(set(scores.tolist())) > 1


@pytest.fixture
def random_judge(tiny_model, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(tiny_model, num_labels=2, id2label={0: "no", 1: "yes"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    return TextClassifier(str(tmp_path), "yes", device="cpu")


def test_no_digit_of_a_score_depends_on_the_batch(random_judge, rows_stand_alone, monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 60, n)) for n in rng.integers(1, 50, 70)]
    whole = random_judge.score(texts)
    assert len(set(whole.tolist())) > 60
    assert [random_judge.score([text])[0] for text in texts[:20]] == whole[:20].tolist()
    assert random_judge.score(texts[::-1]).tolist() == whole[::-1].tolist()
    monkeypatch.setattr(classifiers, "BATCH", 8)
    assert random_judge.score(texts).tolist() == whole.tolist()


def test_texts_of_one_width_go_together_and_rows_are_filled_up(random_judge, monkeypatch):
    own, shapes = random_judge.model.forward, []

    def noted(input_ids, **options):
        shapes.append(tuple(input_ids.shape))
        return own(input_ids=input_ids, **options)

    monkeypatch.setattr(random_judge.model, "forward", noted)
    random_judge.score(["w1 " * n for n in (20, 3, 5, 1000, 40, 30)] + ["w2"] * 33)
    limit = min(random_judge.model.config.max_position_embeddings, 512)
    assert shapes == [(32, 16), (8, 16), (8, 32), (8, 48), (8, limit)]


def test_out_of_memory_halves_the_batch_and_says_so(random_judge, monkeypatch, caplog):
    judge = random_judge
    texts = [f"w{i} w{i + 1}" for i in range(40)]
    whole, own, sizes = judge.score(texts), judge.model.forward, []

    def scarce(input_ids, **options):
        sizes.append(len(input_ids))
        if len(input_ids) > 8:
            raise torch.OutOfMemoryError("out of memory")
        return own(input_ids=input_ids, **options)

    monkeypatch.setattr(judge.model, "forward", scarce)
    np.testing.assert_allclose(judge.score(texts), whole, atol=1e-6)
    assert sizes == [32, 16, 8, 8, 8, 8, 8]
    assert "going on with 8" in caplog.text


def test_missing_label(hub):
    with pytest.raises(ModelError, match=r"no label 'happy'; it has \['negative', 'positive'\]"):
        TextClassifier(SENTIMENT, "happy", device="cpu")


def test_missing_model(hub):
    with pytest.raises(ModelError, match="nobody/judge is not on the hub") as caught:
        TextClassifier("nobody/judge", "POSITIVE", device="cpu")
    assert "\n" not in str(caught.value)


def test_similarity_halves_its_batches_when_memory_runs_out(caplog):
    sizes = []

    class Batch(dict):
        def to(self, device):
            return self

    def tokenizer(left, right, **options):
        return Batch(
            lengths=torch.tensor([len(a) - len(b) for a, b in zip(left, right, strict=True)])
        )

    class Model:
        config = SimpleNamespace(max_position_embeddings=512)
        device = "cpu"

        def __call__(self, lengths):
            sizes.append(len(lengths))
            if len(lengths) > 8:
                raise torch.OutOfMemoryError("out of memory")
            return SimpleNamespace(logits=lengths[:, None].float())

    similar = Similarity.__new__(Similarity)
    similar.tokenizer, similar.model = tokenizer, Model()
    left = ["x" * (i % 5) for i in range(40)]
    scores = similar.score(left, ["xx"] * 40)
    wanted = torch.tensor([len(text) - 2.0 for text in left]).sigmoid()
    np.testing.assert_allclose(scores, wanted)
    assert sizes == [32, 16, 8, 8, 8, 8, 8] and "out of memory" in caplog.text
    assert similar.score([], []).shape == (0,)
