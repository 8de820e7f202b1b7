"""A judge behind an OpenAI-compatible server: what it asks, reads, keeps, and survives."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import Server

from steering_core.config.task import Endpoint
from steering_core.config.validation import validated
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


def test_what_decides_an_answer_is_asked_anew_and_what_was_asked_before_is_kept(
    serve, tmp_path: Path, monkeypatch
):
    server, elsewhere = serve(by_word), serve(by_word)

    def rate(text="joy", **settings) -> int:
        given = {"url": server.url, "model": "judge", "concept": "joy"} | settings
        Rater(Endpoint(**given), tmp_path).rate([text], ["concept"])
        return len(server.bodies) + len(elsewhere.bodies)

    assert rate() == 1
    assert rate("joy!") == 2 and rate(model="other") == 3 and rate(concept="glee") == 4
    assert rate(url=elsewhere.url) == 5 and rate(max_tokens=99) == 6
    # None of these has a part in the answer; a slash after the address is no other address.
    free = {"at_once": 9, "timeout_s": 3.0, "key": "OTHER", "price_in": 1.0, "price_out": 1.0}
    assert rate(**free) == 6 and rate(url=server.url + "/") == 6
    with monkeypatch.context() as patched:
        levels = ("no joy at all", *api_judge._LEVELS["concept"][1:])
        patched.setitem(api_judge._LEVELS, "concept", levels)
        assert rate() == 7
    assert rate() == 7 and rate(model="other") == 7


def test_jobs_at_the_same_time_ask_a_question_once(serve, tmp_path: Path):
    def slowly(number: int, body: dict):
        time.sleep(0.2)
        return by_word(number, body)

    server, found = serve(slowly), []

    def rate() -> None:
        found.append(Rater(endpoint(server), tmp_path).rate(["joy", "rain"], ["concept"]))

    jobs = [threading.Thread(target=rate) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(server.bodies) == 2 and len(found) == 3
    assert all(one.equals(found[0]) for one in found)
    assert not list(tmp_path.rglob("*.lock"))


def test_a_question_that_was_refused_is_asked_on_with_a_larger_budget(serve, tmp_path: Path):
    server = serve(lambda n, _: (200, {}, "No." if n < 3 else "Rating: 2"))
    rated = Rater(endpoint(server, attempts=2), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].isna().all() and len(server.bodies) == 2
    rated = Rater(endpoint(server, attempts=4), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [2] and rated["asked"].tolist() == [4]
    (file,) = tmp_path.rglob("*.json")
    assert json.loads(file.read_text())["answers"] == ["No.", "No.", "No.", "Rating: 2"]


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


@pytest.mark.parametrize("named", ["seconds", "date"])
def test_retry_after_is_obeyed(serve, tmp_path: Path, monkeypatch, named: str):
    waits: list[float] = []
    monkeypatch.setattr(api_judge.time, "sleep", waits.append)
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)
    asked = {"Retry-After": "7" if named == "seconds" else then}
    server = serve(lambda n, body: (429, asked, "") if n == 0 else by_word(n, body))
    rated = Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [2]
    assert 6.0 < max(waits) <= 8.0


def test_while_one_call_waits_for_the_server_no_other_is_made(serve, tmp_path: Path):
    sent: list[float] = []

    def limited(number: int, body: dict):
        sent.append(time.monotonic())
        return (429, {"Retry-After": "1"}, "") if number == 0 else by_word(number, body)

    server = serve(limited)
    texts = [f"joy {i}" for i in range(5)]
    Rater(endpoint(server, at_once=1, attempts=2), tmp_path).rate(texts[:1], ["concept"])
    rater = Rater(endpoint(server, at_once=2), tmp_path)
    rater._not_before = time.monotonic() + 0.5
    started = len(sent)
    rater.rate(texts, ["concept"])
    assert min(sent[started:]) >= rater._not_before and sent[1] - sent[0] >= 1.0


def test_a_server_that_asks_for_too_long_a_wait_is_left_in_peace(serve, tmp_path: Path):
    server = serve(lambda *_: (429, {"Retry-After": "86400"}, ""))
    with pytest.raises(ModelError, match=r"come back in 86400 s \(status 429\)"):
        Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert len(server.bodies) == 1


def test_an_answer_that_cannot_be_decoded_is_asked_for_again(serve, tmp_path: Path):
    broken = (200, {"Content-Encoding": "gzip"}, "no gzip")
    server = serve(lambda n, body: broken if n == 0 else by_word(n, body))
    rated = Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [2] and len(server.bodies) == 2


def test_an_answer_with_half_a_character_is_kept(serve, tmp_path: Path):
    server = serve(lambda *_: (200, {}, "\ud800\nRating: 1"))
    rated = Rater(endpoint(server), tmp_path).rate(["joy"], ["concept"])
    assert rated["rating"].tolist() == [1] and rated["raw"].tolist() == ["?\nRating: 1"]


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
    said = {"model": KEY, "choices": [{"message": {"content": f"You sent {KEY}\nRating: 2"}}]}
    rated = Rater(endpoint(serve(lambda *_: (200, {}, said)), key="JUDGE_KEY"), tmp_path).rate(
        ["joy"], ["concept"]
    )
    assert rated["rating"].tolist() == [2] and KEY not in rated.to_json()
    assert all(KEY not in file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("wrong", [f"{KEY}\nX-Other: 1", f"{KEY} 2", f"{KEY}…"])
def test_what_cannot_be_a_key_is_refused_and_not_quoted(
    serve, tmp_path: Path, monkeypatch, caplog, wrong
):
    monkeypatch.setenv("JUDGE_KEY", wrong)
    server = serve(by_word)
    with pytest.raises(ConfigError, match="JUDGE_KEY holds no key") as error:
        Rater(endpoint(server, key="JUDGE_KEY"), tmp_path).rate(["joy"], ["concept"])
    assert KEY not in str(error.value) + caplog.text and not server.bodies


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"url": f"https://user:{KEY}@judge.example/v1"}, "without a user, a password or a query"),
        ({"url": f"https://judge.example/v1?api_key={KEY}"}, "without a user, a password"),
        ({"url": f"https//user:{KEY}@judge.example"}, "give an address such as"),
        ({"url": f"https://{KEY}:port/v1"}, "give an address such as"),
        ({"url": "https://judge.example/v1/chat/completions"}, "give the base address"),
        ({"key": KEY}, "not the key itself"),
    ],
)
def test_a_key_in_the_configuration_is_refused_and_not_quoted(section: dict, message: str):
    given = {"url": "https://judge.example/v1", "model": "judge"} | section
    with pytest.raises(ConfigError, match=message) as error:
        validated(Endpoint, given, "classifier.api")
    assert KEY not in str(error.value)
    with pytest.raises(ValueError, match=message) as error:  # without the pipeline
        Endpoint(**given)
    assert KEY not in str(error.value)


def test_a_refused_key_names_its_variable(serve, tmp_path: Path):
    server = serve(lambda *_: (401, {}, "who are you"))
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        Rater(endpoint(server, key="JUDGE_KEY"), tmp_path).rate(["joy"], ["concept"])


def test_calls_and_cost_are_told_before_the_first_call(serve, tmp_path: Path, caplog):
    before: list[str] = []

    def looking(number: int, body: dict):
        before.append(caplog.text)
        return by_word(number, body)

    server = serve(looking)
    priced = endpoint(server, price_in=1e6, price_out=0.0, attempts=2)
    with caplog.at_level(logging.INFO):
        Rater(priced, tmp_path).rate(["joy", "rain"], ["concept"])
    assert "2 ratings, 0 of them kept from before; 2 calls" in before[0]
    assert "in the currency of price_in (4 calls" in before[0]
    told = Rater(priced, tmp_path).announce(["x" * 400], 1)
    # Asked a second time, it reads 100 tokens again and its own answer.
    assert told == {
        **{"calls": 1, "read": 100, "written": 256, "cost": 100.0},
        **{"most_calls": 2, "most_cost": 100.0 + 100.0 + 256.0},
    }


def test_no_more_is_asked_than_was_told(serve, tmp_path: Path):
    server = serve(lambda *_: (200, {}, "No."))
    rater = Rater(endpoint(server, attempts=3), tmp_path)
    rater.rate(["joy", "rain"], ["concept"])
    assert len(server.bodies) == rater.announce(["x", "y"], 2)["most_calls"]


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
