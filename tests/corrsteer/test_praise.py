from steering_core.corrsteer.praise import PRAISE, read_praise
from steering_core.demo.vocabulary import lexicon


def test_more_positive_than_negative_words_succeed():
    good, bad = lexicon()["positive"][0], lexicon()["negative"][0]
    texts = [f"was {good} .", f"was {bad} .", f"was {good} but {bad} .", "went there in may .", ""]
    verdict = PRAISE.success.judge(texts, ["praise"] * 5, [[]] * 5)
    assert verdict.success.tolist() == [True, False, False, False, False]
    assert verdict.answer == ["positive", "negative", "mixed or none", "mixed or none", None]


def test_a_row_is_read_without_its_truth():
    assert read_praise({"prompt": "the film was"}).prompt == "the film was"
    assert not PRAISE.is_select and PRAISE.success.classifier is None
