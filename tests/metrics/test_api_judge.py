"""A judge behind an OpenAI-compatible server: what it asks, reads, keeps, and survives."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import Server

from steering_core.config.task import Endpoint
from steering_core.errors import ConfigError, ModelError
from steering_core.metrics import api_judge
from steering_core.metrics.api_judge import (
    SCALES,
    ApiJudge,
    Rater,
    harmonic_mean,
    read_rating,
    rubric,
)

KEY = "sk-a-secret-of-the-test"


@pytest.fixture
def serve(monkeypatch) -> Iterator:
    """Start a server for a reply function; it stops with the test."""
    started: list[Server] = []
    monkeypatch.setattr(api_judge, "FIRST_WAIT_S", 0.001)

    def start(reply) -> Server:
        server = Server(reply)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def endpoint(server: Server, **settings) -> Endpoint:
    return Endpoint(url=server.url, model="judge", concept="joy", **settings)


def by_word(_: int, body: dict):
    """Rate 2 if the text says "joy", else 0."""
    text = body["messages"][0]["content"].split("[text begins]")[1]
    return 200, {}, f"A reason.\nRating: {2 if 'joy' in text else 0}"


def test_ratings_come_back_in_the_order_of_the_texts(serve, tmp_path: Path):
    server = serve(by_word)
    texts = [f"{'joy' if i % 3 else 'rain'} {i}" for i in range(12)]
    rated = Rater(endpoint(server), tmp_path).rate(texts, ["concept"])
    assert rated["rating"].tolist() == [2 if i % 3 else 0 for i in range(12)]
    assert rated["model"].eq("judge-1").all() and rated["asked"].eq(1).all()
    assert {body["temperature"] for body in server.bodies} == {0}
    assert {body["path"] for body in server.bodies} == {"/v1/chat/completions"}


def test_a_rerun_asks_nothing_twice_and_equal_texts_are_asked_once(serve, tmp_path: Path):
    server = serve(by_word)
    texts = ["joy", "joy", "rain"]
    first = Rater(endpoint(server), tmp_path).rate(texts, ["concept", "fluency"])
    assert len(server.bodies) == 4
    again = Rater(endpoint(server), tmp_path).rate(texts, ["concept", "fluency"])
    assert len(server.bodies) == 4
    assert again.equals(first)


def test_another_model_or_text_is_asked_anew(serve, tmp_path: Path):
    server = serve(by_word)
    Rater(endpoint(server), tmp_path).rate(["joy"], ["fluency"])
    other = Endpoint(url=server.url, model="other", concept="joy")
    Rater(other, tmp_path).rate(["joy"], ["fluency"])
    Rater(endpoint(server), tmp_path).rate(["joy!"], ["fluency"])
    assert len(server.bodies) == 3


def test_the_raw_answer_is_kept_beside_the_rating(serve, tmp_path: Path):
    server = serve(by_word)
    Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    (file,) = tmp_path.rglob("*.json")
    kept = json.loads(file.read_text())
    assert kept["raw"] == "A reason.\nRating: 2" and kept["rating"] == 2
    assert kept["question"] == server.bodies[0]["messages"][0]["content"]
    assert kept["date"].endswith("+00:00")


def test_a_refusal_to_rate_is_recorded_counted_and_never_a_zero(serve, tmp_path: Path, caplog):
    server = serve(lambda *_: (200, {}, "I would rather not."))
    with caplog.at_level(logging.WARNING):
        rated = Rater(endpoint(server, attempts=3), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].isna().all() and rated["asked"].tolist() == [3]
    assert rated["raw"].tolist() == ["I would rather not."]
    assert "1 of 1 ratings: the judge gave no number" in caplog.text
    Rater(endpoint(server, attempts=3), tmp_path).rate(["joy"], ["concept"])
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("message", "raw"),
    [({"content": None}, ""), ({"content": None, "refusal": "No."}, "No.")],
)
def test_an_answer_without_content_is_no_rating_and_no_error(serve, tmp_path: Path, message, raw):
    server = serve(lambda *_: (200, {}, {"model": "judge-1", "choices": [{"message": message}]}))
    rated = Rater(endpoint(server, attempts=2), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].isna().all() and rated["raw"].tolist() == [raw]
    assert rated["asked"].tolist() == [2] and rated["model"].tolist() == ["judge-1"]
    assert all(message["content"] for message in server.bodies[1]["messages"])


def test_an_answer_without_a_number_is_asked_for_one(serve, tmp_path: Path):
    server = serve(lambda n, _: (200, {}, "It is lovely." if n == 0 else "Rating: 1"))
    rated = Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [1] and rated["asked"].tolist() == [2]
    assert [m["role"] for m in server.bodies[1]["messages"]] == ["user", "assistant", "user"]
    (file,) = tmp_path.rglob("*.json")
    kept = json.loads(file.read_text())
    assert kept["answers"] == ["It is lovely.", "Rating: 1"] and kept["raw"] == "Rating: 1"
    assert kept["again"] == server.bodies[1]["messages"][2]["content"]


def test_an_empty_text_is_not_sent(serve, tmp_path: Path):
    server = serve(by_word)
    rated = Rater(endpoint(server), tmp_path).rate(["", " …", "joy"], ["concept"])
    assert rated["rating"].isna().tolist() == [True, True, False]
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(serve, tmp_path: Path, status: int):
    server = serve(lambda n, body: (status, {}, "busy") if n < 2 else by_word(n, body))
    rated = Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [2] and len(server.bodies) == 3


def test_retry_after_is_obeyed(serve, tmp_path: Path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(api_judge.time, "sleep", waits.append)
    server = serve(lambda n, body: (429, {"Retry-After": "7"}, "") if n == 0 else by_word(n, body))
    Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert 7.0 in waits


def test_a_server_that_stays_busy_is_an_error_and_answers_so_far_are_kept(serve, tmp_path: Path):
    server = serve(lambda n, body: by_word(n, body) if n == 0 else (503, {}, "busy"))
    rater = Rater(endpoint(server, attempts=2, at_once=1), tmp_path)
    with pytest.raises(ModelError, match="did not answer in 2 attempts"):
        rater.rate(["joy", "rain"], ["concept"])
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_a_server_that_is_not_there_is_an_error_with_its_address(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(api_judge, "FIRST_WAIT_S", 0.001)
    gone = Endpoint(url="http://127.0.0.1:9/v1", model="judge", concept="joy", attempts=2)
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9.*did not answer"):
        Rater(gone, tmp_path).rate(["joy"], ["concept"])


@pytest.mark.parametrize("said", [{"choices": []}, {"choices": [{"message": {}}]}, "<html>"])
def test_another_form_of_answer_is_an_error(serve, tmp_path: Path, said):
    reply = said if isinstance(said, dict) else [said]
    server = serve(lambda *_: (200, {}, reply))
    with pytest.raises(ModelError, match="OpenAI's form"):
        Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])


def test_the_key_is_sent_and_stands_in_no_file_log_or_error(
    serve, tmp_path: Path, monkeypatch, caplog
):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server = serve(by_word)
    with caplog.at_level(logging.DEBUG):
        Rater(endpoint(server, key="JUDGE_KEY"), tmp_path).rate(["joy"], ["concept"])
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in caplog.text
    assert all(KEY not in file.read_text() for file in tmp_path.rglob("*.json"))
    echo = serve(lambda *_: (400, {}, f"bad request with {KEY}"))
    with pytest.raises(ModelError) as error:
        Rater(endpoint(echo, key="JUDGE_KEY"), tmp_path).rate(["joy"], ["concept"])
    assert KEY not in str(error.value)


def test_a_refused_key_names_its_variable(serve, tmp_path: Path):
    server = serve(lambda *_: (401, {}, "who are you"))
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        Rater(endpoint(server, key="JUDGE_KEY"), tmp_path).rate(["joy"], ["concept"])


def test_calls_and_cost_are_told_before_the_first_call(serve, tmp_path: Path, caplog):
    server = serve(by_word)
    priced = endpoint(server, price_in=1e6, price_out=0.0)
    with caplog.at_level(logging.INFO):
        Rater(priced, tmp_path).rate(["joy", "rain"], ["concept"])
    assert "2 calls" in caplog.text and "at most" in caplog.text
    told = Rater(priced, tmp_path).announce(["x" * 400], 1)
    assert told == {"calls": 1, "read": 100, "written": 256, "cost": 100.0}


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Rating: 2", 2),
        ("It is fine.\n**Rating: 1**", 1),
        ("rating: [[0]]", 0),
        ("Rating: 3", None),
        ("Rating: 1.5", None),
        ("Rating: 1\nRating: 2", None),
        ("I give it a 2", None),
        ("Rating: 1 or 2", None),
        ("", None),
    ],
)
def test_only_a_line_with_one_number_of_the_scale_is_a_rating(answer: str, rating: int | None):
    assert read_rating(answer) == rating


@given(st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_the_harmonic_mean_is_of_the_ratings_and_zero_with_a_zero(ratings: list[int]):
    mean = harmonic_mean(ratings)
    assert min(ratings) <= mean <= max(ratings) or mean == pytest.approx(max(ratings))
    assert (mean == 0) == (0 in ratings)


def test_the_harmonic_mean_of_a_missing_rating_is_missing():
    assert np.isnan(harmonic_mean([2, None, 2]))


def test_every_scale_has_its_own_question():
    asked = {scale: rubric(scale, "a text", concept="joy", instruction="sing") for scale in SCALES}
    assert "joy" in asked["concept"] and "sing" in asked["instruction"]
    assert "joy" not in asked["fluency"] and len(set(asked.values())) == 3
    with pytest.raises(ConfigError, match="needs the concept"):
        rubric("concept", "a text")


def test_the_judge_of_classes_halves_the_rating(serve, tmp_path: Path):
    def reply(_: int, body: dict):
        text = body["messages"][0]["content"].split("[text begins]")[1]
        number = next((n for n in "012" if n in text.split("[text ends]")[0]), None)
        return 200, {}, f"Rating: {number}" if number else "no"

    verdict = ApiJudge(endpoint(serve(reply), attempts=1), tmp_path).judge(
        ["text 2", "text 1", "text 0", "text", ""], [1] * 5
    )
    assert verdict.score[:3].tolist() == [1.0, 0.5, 0.0] and np.isnan(verdict.score[3:]).all()
    assert verdict.success.tolist() == [True, False, False, False, False]
    assert verdict.answer == ["1", None, "0", None, None]


def test_the_judge_of_classes_needs_a_concept_in_words(tmp_path: Path):
    with pytest.raises(ConfigError, match="say in words"):
        ApiJudge(Endpoint(url="http://127.0.0.1:9", model="judge"), tmp_path)
