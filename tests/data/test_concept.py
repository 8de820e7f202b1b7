"""A concept file that is missing or malformed is one clear error."""

import copy
from pathlib import Path

import pytest
import yaml

from steering_core.data.concept import read_concept
from steering_core.errors import ConfigError

GOOD = {
    "concept": "warmth",
    "description": "warm or cold",
    "prompts": ["one", "two"],
    "validation_prompts": ["three"],
    "contrast": [{"positive": f"p{i}", "negative": f"n{i}"} for i in range(2)],
    "personas": {"positive": "P ", "negative": "N "},
    "queries": ["q1", "q2"],
}
OPTIONAL = ("description", "validation_prompts")


def write(folder: Path, value: object) -> Path:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def test_reads(tmp_path: Path):
    concept = read_concept(write(tmp_path, GOOD))
    assert concept.prompts == ["one", "two"]
    assert concept.contrast[1].negative == "n1"
    assert concept.personas.positive == "P "


def test_missing_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"there is no file .*gone.yaml"):
        read_concept(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="there is no file"):
        read_concept(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": [True]}, "prompts.0"),
        ({"contrast": GOOD["contrast"][:1]}, "contrast"),
        ({"contrast": [{"positive": "p"}] * 2}, "contrast.0.negative"),
        ({"contrast": [{"positive": "p", "negative": ""}] * 2}, "contrast.0.negative"),
        ({"personas": None}, "personas"),
        ({"personas": {"positive": "p", "negative": "n", "neutral": "o"}}, "personas.neutral"),
        ({"queries": ["q"]}, "queries"),
        ({"querys": ["q", "r"]}, "querys"),
        ({"concept": None}, "concept"),
        ({"queries": ["one", "q"]}, "both a prompt and a query: 'one'"),
        ({"queries": ["three", "q"]}, "both a validation prompt and a query: 'three'"),
        ({"validation_prompts": ["two"]}, "both a prompt and a validation prompt: 'two'"),
        ({"validation_prompts": [""]}, "validation_prompts.0"),
        ({"prompts": ["one", "p1"]}, "both a prompt and a contrast: 'p1'"),
        ({"prompts": ["one", " N0\t"]}, "both a prompt and a contrast: ' N0\\t'"),
        ({"validation_prompts": ["ｐ1"]}, "both a validation prompt and a contrast"),
        ({"prompts": ["one", "p"]}, "both a prompt and a persona: 'p'"),
        ({"prompts": ["one", "p  q1"]}, "both a prompt and a persona with query: 'p  q1'"),
        ({"validation_prompts": ["N q2"]}, "both a validation prompt and a persona with query"),
        ({"validation_prompts": ["TWO"]}, "both a prompt and a validation prompt: 'two'"),
        ({"prompts": ["one", "two", "One "]}, "twice among the prompts: 'One '"),
        ({"prompts": ["a", "b", "a", "b"]}, "twice among the prompts: 'a', 'b'"),
        ({"validation_prompts": ["x", "x"]}, "twice among the validation prompts: 'x'"),
        ({"queries": ["q1", "Q1"]}, "twice among the queries: 'Q1'"),
        ({"contrast": [GOOD["contrast"][0]] * 2}, "contrast 1 repeats contrast 0: 'p0'"),
        (
            {"contrast": [*GOOD["contrast"], {"positive": "p", "negative": "P"}]},
            "the texts of contrast 2 are the same: 'p'",
        ),
        (
            {"contrast": [*GOOD["contrast"], {"positive": "n0", "negative": "x"}]},
            "both a positive and a negative text of contrast: 'n0'",
        ),
    ],
    ids=str,
)
def test_malformed_files_name_what_is_wrong(tmp_path: Path, change: dict, named: str):
    with pytest.raises(ConfigError, match=r"c.yaml") as caught:
        read_concept(write(tmp_path, {**copy.deepcopy(GOOD), **change}))
    assert named in str(caught.value)


@pytest.mark.parametrize("key", [key for key in GOOD if key not in OPTIONAL])
def test_missing_keys_are_named(tmp_path: Path, key: str):
    with pytest.raises(ConfigError, match=key):
        read_concept(write(tmp_path, {k: v for k, v in GOOD.items() if k != key}))


@pytest.mark.parametrize("content", [b"", b"- a\n", b"3", b"a: [", b"\xff\xfe\x00a", b"a: \x00"])
def test_what_is_no_concept_at_all(tmp_path: Path, content: bytes):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="concept file"):
        read_concept(path)


def test_a_file_cannot_make_objects(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("concept: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="concept file"):
        read_concept(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": None}, "queries: is missing: a list of neutral texts, which follow a persona"),
        ({"prompts": None}, "prompts: is missing: a list of openings"),
        ({"prompts": "prompt"}, "prompt: unknown key (did you mean 'prompts'?)"),
        ({"personas": "persona"}, "persona: unknown key (did you mean 'personas'?)"),
        ({"validation_prompts": "validation_prompt"}, "(did you mean 'validation_prompts'?)"),
    ],
)
def test_a_missing_or_misspelt_key_is_one_message_with_file_and_role(tmp_path, change, said):
    file = {k: v for k, v in GOOD.items() if k not in change}
    file |= {new: GOOD[old] for old, new in change.items() if new}
    path = write(tmp_path, file)
    with pytest.raises(ConfigError) as caught:
        read_concept(path)
    message = str(caught.value)
    assert message.startswith(f"in the concept file {path}: ") and said in message
    assert "\n" not in message and "validation error" not in message and "; " not in message


def test_a_text_that_yaml_reads_as_something_else_is_to_be_put_in_quotes(tmp_path: Path):
    path = tmp_path / "c.yaml"
    text = yaml.safe_dump({**GOOD, "queries": ["q", "QQ"]}).replace("QQ", "yes")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"queries\.1: .*\(got True\): put it in quotes"):
        read_concept(path)
