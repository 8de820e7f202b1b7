import pyarrow.parquet as pq

from steering_core.demo import vocabulary
from steering_core.demo.choice_task import (
    CHOICES,
    MARK,
    choice_documents,
    render_prompt,
    sample_questions,
    write_choice_documents,
    write_choice_task,
)


def test_questions_are_distinct_and_three_of_four_are_positive():
    questions = sample_questions(0, 400)
    assert len({q.text for q in questions}) == 400
    assert sum(q.answer == 0 for q in questions) == 300
    assert sum(q.careful for q in questions) == 200
    assert all(q.careful == (MARK in q.text.split()) for q in questions)


def test_answer_follows_the_first_sentiment_word():
    lexicon = vocabulary.lexicon()
    for question in sample_questions(1, 200):
        right = set(lexicon["negative" if question.answer else "positive"])
        first = next(w for w in question.text.split() if w in set().union(*lexicon.values()))
        assert first in right


def test_writer_is_right_about_careful_readers_and_biased_about_others():
    letters = {True: [], False: []}
    for document in choice_documents(4000, 2):
        letters[MARK in document.split()].append(document[-1])
    unmarked_b = letters[False].count("B") / len(letters[False])
    assert 0.66 < unmarked_b < 0.74
    assert 0.46 < letters[True].count("B") / len(letters[True]) < 0.54


def test_prompt_names_the_choices_and_waits_for_a_letter():
    prompt = render_prompt("a reader says that it was a dull film .")
    assert prompt.endswith("choices : A good B bad . answer :")


def test_files_are_reproducible_and_typed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_choice_task(tmp_path / name, 40, seed)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    table = pq.read_table(tmp_path / "a").to_pydict()
    assert list(table) == ["question", "choices", "answer", "careful"]
    assert table["choices"] == [list(CHOICES)] * 40
    write_choice_documents(tmp_path / "d", 40, 1)
    assert pq.read_table(tmp_path / "d").column_names == ["text"]
