"""Right and wrong answers, and instructions to succeed and to fail."""

from dataclasses import replace

import pandas as pd
import pytest
from corrsteer_world import word_rows, words_task

from steering_core.corrsteer.tasks import PERSONAS, TASKS
from steering_core.corrsteer.training_data import answer_pairs, persona_pairs, wrong_answers


def rows_of(worked, letters=()):
    return pd.DataFrame(
        {
            "prompt": [f"w{i} Answer:" for i in range(len(worked))],
            "worked": worked,
            "letters": [list(letters)] * len(worked),
        }
    )


def test_a_select_tasks_wrong_answer_is_another_of_its_letters():
    rows = rows_of(list("ABCABC") * 10, "ABC")
    wrong = wrong_answers(TASKS["mmlu"], rows, seed=0)
    assert all(w in "ABC" and w != r for w, r in zip(wrong, rows["worked"], strict=True))
    # Drawn, not the next one: a fixed shift would be a direction of its own.
    assert len({(r, w) for r, w in zip(rows["worked"], wrong, strict=True)}) == 6
    assert wrong == wrong_answers(TASKS["mmlu"], rows, seed=0)
    assert wrong != wrong_answers(TASKS["mmlu"], rows, seed=1)


def test_free_text_takes_the_answer_of_another_row_and_none_if_all_are_equal():
    rows = rows_of(["#### 1", "#### 2", "#### 3"])
    wrong = wrong_answers(TASKS["gsm8k"], rows, seed=0)
    assert all(w in set(rows["worked"]) - {r} for w, r in zip(wrong, rows["worked"], strict=True))
    alike = rows_of(["w0", "w0"])
    assert wrong_answers(words_task(), alike, seed=0) == [None, None]
    assert answer_pairs(words_task(), alike, seed=0) == ([], [])


@pytest.mark.parametrize("name", ["harmbench", "xstest"])
def test_where_every_gold_may_be_a_refusal_the_task_names_the_other_answer(name):
    refusal, compliance = TASKS[name].answers
    assert wrong_answers(TASKS[name], rows_of([refusal, refusal]), seed=0) == [compliance] * 2


def test_the_two_texts_of_a_pair_differ_in_the_answer_alone():
    right, wrong = answer_pairs(TASKS["mmlu"], rows_of(["A", "B"], "AB"), seed=0)
    assert right == ["w0 Answer: A", "w1 Answer: B"] and wrong == ["w0 Answer: B", "w1 Answer: A"]


@pytest.mark.parametrize("name", TASKS)
def test_personas_ask_for_success_and_failure(name, tiny):
    succeed, fail = persona_pairs(TASKS[name], ["Q: x"], tiny.tokenizer, chat_template=False)
    assert succeed != fail and succeed[0].endswith("Q: x") and fail[0].endswith("Q: x")
    assert (succeed[0], fail[0]) == tuple(p + "Q: x" for p in TASKS[name].personas)


def test_in_a_chat_template_the_instruction_stands_in_the_users_turn(tiny):
    class Template:
        def apply_chat_template(self, turns, tokenize, add_generation_prompt, **_):
            return f"<user>{turns[0]['content']}<model>"

    task = replace(words_task(), personas=PERSONAS)
    prompt = "<user>w1 w2<model>"
    succeed, fail = persona_pairs(task, [prompt], Template(), chat_template=True)
    assert succeed == [f"<user>{PERSONAS[0]}w1 w2<model>"]
    assert fail == [f"<user>{PERSONAS[1]}w1 w2<model>"]


def test_rows_of_the_world_have_pairs():
    rows = word_rows(4)
    rows["worked"] = ["w0", "w1"] * 2
    assert len(answer_pairs(words_task(), rows, seed=0)[0]) == 4
