"""What is wrong in a section or a small file is one message about keys, not about a schema."""

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from steering_core.config.validation import hint, read_validated, validated
from steering_core.errors import ConfigError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: Annotated[str, Field(description="how it looks")]
    weight: float | None = None


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: list[Part]
    by_name: dict[str, Part] = {}
    one: Part | None = None


GOOD = {"colour": "red"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"parts": [{}]}, "parts.0.colour: is missing: how it looks"),
        ({"parts": [{"color": "red"}]}, "parts.0.color: unknown key (did you mean 'colour'?)"),
        ({"part": []}, "part: unknown key (did you mean 'parts'?)"),
        ({"parts": [], "one": {**GOOD, "wieght": 1}}, "(did you mean 'weight'?)"),
        ({"parts": [], "by_name": {"a": {**GOOD, "wieght": 1}}}, "by_name.a.wieght: unknown"),
        ({"parts": [{"colour": 7}]}, "(got 7): put it in quotes"),
        ({"parts": [], "zzz": 1}, "zzz: unknown key"),
        ({"parts": [], "one": "red"}, "one: must have keys of its own, not a text"),
        (
            {"parts": [], "by_name": {"front": GOOD, "frontt": None}},
            "by_name.frontt: must have keys of its own, not null (did you mean 'front'?)",
        ),
    ],
)
def test_each_problem_is_reported_once_with_a_suggestion(value, said):
    with pytest.raises(ConfigError) as caught:
        validated(Whole, value, "here")
    message = str(caught.value)
    assert message.startswith("in here: ") and said in message
    assert ";" not in message and "Field required" not in message and "pydantic" not in message


def test_a_missing_key_and_a_misspelt_key_are_both_reported():
    with pytest.raises(ConfigError, match=r"one.colour: is missing.*part: unknown key"):
        validated(Whole, {"part": [], "one": {}}, "here")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", b"- 1\n", "not a list. Needed are parts"),
        ("a.yaml", b"", "not null"),
        ("a.yaml", b"parts: [", "is not YAML: .* \\(line 1, column "),
        ("a.yaml", b"parts: \xff", "is not UTF-8"),
        ("a.json", b"{'parts': 1}", "is not JSON"),
        ("a.json", b"[1]", "not a list"),
    ],
)
def test_a_file_of_another_form_is_reported_in_one_line_with_its_role(
    tmp_path: Path, name, content, said
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        read_validated(Whole, path, "role")
    assert str(caught.value).startswith(f"role file {path} ")
    assert "\n" not in str(caught.value)


def test_the_name_of_a_file_decides_its_format(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps({"parts": [GOOD]}))
    (tmp_path / "a.yaml").write_text("parts: [{colour: red}]")
    for path in tmp_path.iterdir():
        assert read_validated(Whole, path, "role").parts[0].colour == "red"
    with pytest.raises(ConfigError, match=r"role: there is no file .*gone"):
        read_validated(Whole, tmp_path / "gone.yaml", "role")


def test_no_suggestion_if_no_key_is_near():
    assert hint("xyz", ["colour"]) == ""
