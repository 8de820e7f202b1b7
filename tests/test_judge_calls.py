"""What a judge behind a server will be asked at most is known before any job."""

import re
from pathlib import Path

import pytest
import yaml

from steering_core.config.resolve import resolve
from steering_core.early_checks.judge_calls import count_strengths, judge_calls

ROOT = Path(__file__).resolve().parents[1]
API = {"url": "http://localhost:8000/v1", "model": "big", "concept": "joy"}
SETTINGS = {
    "methods": ["no_steering", "caa_repe", "qp_optimal", "prompting", "lora"],
    **{"strengths": [0.5, 1.0], "qp_tau": [1.0, 2.0, 4.0], "qp_lambda": [1.0, 10.0]},
    "lora": {"scales": [0.5, 1.0]},
    "programs": {
        "dense": {"program": "dense", "mode": "uniform", "tau": [1.0, 2.0]},
        "counted": {"program": "qp", "mode": "uniform", "tau": [1.0], "features": [1, 2, 4]},
        "sparse": {"program": "socp", "tau": [1.0, 2.0], "epsilon": [1.0, 2.0]},
    },
    "gated": {"behind": {"method": "dense", "gate": {"probe_below": 0.0}}},
    "layer": "effect",
    **{"effect_layers": [1, 2], "draws": 3, "n_prompts": 4, "n_validation_prompts": 2},
}
#: Without and with steering; each margin of each λ; prompting; LoRA; programs; the gated one.
STRENGTHS = 1 + 2 + 6 + 1 + 2 + 2 + 3 + 4 + 2


def experiment(*judges, **settings):
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["tasks"]["grammar"] = {**config["tasks"]["grammar"], "classifier": [*judges]}
    config["experiments"] = {"mine": {"model": "demo", "task": "grammar"}}
    return resolve({**config, **SETTINGS, **settings}, "mine")


@pytest.mark.parametrize(
    ("stage", "ratings"),
    [
        ("judge", 3 * 6 * STRENGTHS),
        ("rate", 3 * 3 * 6 * STRENGTHS),  # of three scales
        ("try_layer", 3 * 2 * 3),  # validation prompts, without and with steering
    ],
)
def test_the_ratings_of_each_stage_are_counted(stage, ratings):
    found = experiment({"api": API})
    assert count_strengths(found.settings) == STRENGTHS
    said = judge_calls(found, stage)
    assert f"mine, {stage}: the judge big at http://localhost:8000/v1" in said
    assert f"at most {ratings} ratings" in said and f"{ratings} calls" in said
    assert "currency" not in said


def test_what_is_asked_has_its_price():
    said = judge_calls(experiment({"api": {**API, "price_in": 1.0, "price_out": 2.0}}), "rate")
    read, written = map(int, re.search(r"about (\d+) tokens .* at most (\d+) to", said).groups())
    assert written == 256 * 3 * 3 * 6 * STRENGTHS
    assert f"about {(read + 2 * written) / 1e6:.2f} in the currency" in said


def test_longer_texts_are_more_to_read():
    found = (experiment({"api": API}, new_tokens=n) for n in (10, 110))
    sizes = [int(re.search(r"about (\d+) tokens", judge_calls(one, "judge"))[1]) for one in found]
    assert sizes[1] - sizes[0] == pytest.approx(100 * 18 * STRENGTHS, abs=1)


def test_other_judges_are_asked_nothing_and_only_the_headline_tries_layers():
    assert judge_calls(experiment({"builtin": "vader"}), "judge") is None
    second = experiment({"builtin": "vader"}, {"api": API})
    assert judge_calls(second, "try_layer") is None
    assert "18 ratings" not in judge_calls(second, "judge")
