"""Two concepts in AxBench's format, from files to the table over concepts, by a local server."""

import re
import threading
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml
from judge_server import Server
from tiny_demo import SIZES, copy_of, finished_demo, run

from steering_core.data.axbench import COLUMNS, EVALUATION, TRAIN, main
from steering_core.demo import vocabulary
from steering_core.demo.grammar import Grammar
from steering_core.storage.files import read_json

CONCEPTS = {0: "praise of something", 1: "blame of something"}
WORDS = {0: set(vocabulary.POSITIVE_ADJECTIVES), 1: set(vocabulary.NEGATIVE_ADJECTIVES)}
METHODS = ["no_steering", "caa_mean_diff", "qp_optimal", "prompting", "lora"]


def write_set(folder: Path) -> None:
    """Write a set of two concepts in the words that the demo's model knows."""
    grammar = Grammar(11)
    asked = iter(dict.fromkeys(grammar.neutral(grammar.domain()) for _ in range(4000)))
    rows = []
    for number, concept in {**CONCEPTS, -1: "EEEEE"}.items():
        for _ in range(80):
            text = grammar.document(1 - max(number, 0)).text if number >= 0 else None
            text = text or " ".join(grammar.neutral(grammar.domain()) for _ in range(2))
            rows.append((next(asked), text, concept, "positive", number))
    folder.mkdir()
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(folder / TRAIN)
    prompts = [(next(asked), "", CONCEPTS[0], "negative", 0) for _ in range(40)]
    pd.DataFrame(prompts, columns=COLUMNS).to_parquet(folder / EVALUATION)


def rated(_: int, body: dict):
    """Rate the concept by its words, fluency by repetition, and every instruction with 1."""
    question = body["messages"][0]["content"]
    text = question.split("[text begins]")[1].split("[text ends]")[0].split()
    rating = 1
    if "[concept begins]" in question:
        (number,) = (n for n, words in CONCEPTS.items() if words in question)
        rating = 2 if WORDS[number] & set(text) else 0
    elif "[instruction begins]" not in question:
        rating = 2 if all(a != b for a, b in pairwise(text)) else 0
    return 200, {}, f"By a rule.\nRating: {rating}"


@pytest.fixture
def judge():
    server = Server(rated)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_two_concepts_are_rated_and_averaged(tmp_path, judge, monkeypatch):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    write_set(directory / "ten_words")
    monkeypatch.chdir(directory)
    sizes = ["--prompts", "4", "--validation-prompts", "3"]
    asks = ["--judge-url", judge.url, "--judge-model", "rule"]
    main(["ten_words", "--model", "demo", "--out", "axbench", *sizes, *asks])
    written = yaml.safe_load((directory / "axbench/config.yaml").read_text())
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["tasks"] |= written["tasks"]
    config["experiments"] |= written["experiments"]
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    kept = ("rows_per_class", "n_prompts", "n_validation_prompts", "methods")
    small = [size for size in SIZES if size.split("=")[0] not in kept]
    small += [f"methods=[{','.join(METHODS)}]", "strengths=[0.5,1.0]"]
    small += ["lora={rank: 2, epochs: 1, learning_rate: 0.01, scales: [1.0]}"]
    table, ratings = "results/tables/axbench_ten_words.csv", "results/axbench_1/ratings.csv"
    # A plan says what the judge will be asked at most, and asks nothing.
    plan = run(directory, table, "--dry-run", sizes=small)
    told = re.findall(r"axbench_(\d), rate: .* at most (\d+) ratings", plan.stdout + plan.stderr)
    assert sorted(number for number, _ in told) == ["0", "1"] and not judge.bodies
    done = run(directory, table, ratings, forked=True, sizes=small)
    assert done.returncode == 0, done.stderr[-6000:]
    assert 0 < len(judge.bodies) <= sum(int(ratings) for _, ratings in told)

    found = pd.read_csv(directory / table)
    assert set(found["experiment"]) == {"ten_words"} and found["published"].isna().all()
    best = found[found["at"] == "best"].set_index("method")
    assert {*best.index} == {*METHODS} and (best["n_concepts"] == 2).all()
    # The judge rates every text 1, and one without a word, which it is not asked about, has 0.
    rated = [pd.read_parquet(directory / f"results/axbench_{k}/ratings.parquet") for k in (0, 1)]
    assert set(pd.concat(rated)["instruction"].dropna()) <= {0.0, 1.0}
    assert best["instruction"].between(0.5, 1).all() and best["instruction"].eq(1).any()
    assert best["harmonic"].between(0, 1.5).all()
    assert best.loc[["prompting", "lora"], "norm"].isna().all()
    assert best.loc["no_steering", "norm"] == 0
    equal = found[found["at"] == "equal_norm"].set_index("method")
    assert equal.loc["caa_mean_diff", "n_concepts"] == 2
    assert (equal.loc[["prompting", "lora"], "n_concepts"] == 0).all()
    own = pd.read_csv(directory / ratings)
    assert (own["n_texts"] == 4).all() and own.groupby("method")["selected"].sum().eq(1).all()

    # The size and cost of the calls are said before the first; a rerun asks nothing.
    log = (directory / "results/axbench_1/logs/rate.log").read_text()
    assert re.search(r"rule: \d+ ratings, \d+ of them kept from before; \d+ calls", log)
    calls = len(judge.bodies)
    questions = [body["messages"][0]["content"] for body in judge.bodies]
    scales = [re.search(r"\[(\w+) begins", question)[1] for question in questions]
    assert set(scales) == {"concept", "instruction", "text"}
    (directory / "results/axbench_1/ratings.parquet").unlink()
    again = run(directory, ratings, forked=True, sizes=small)
    assert again.returncode == 0 and len(judge.bodies) == calls
    kept = sorted((directory / "results/judge_answers").rglob("*.json"))
    assert len({*questions}) == len(kept) == calls  # no two jobs asked the same question
    assert read_json(kept[0])["model"] == "judge-1"
