"""``null`` given with ``--config`` is the null of a configuration file."""

import copy

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config
from workflow_rules import CONFIG

from steering_core.config.command_line import with_nulls
from steering_core.config.corrsteer_resolve import find_corrsteer
from steering_core.config.resolve import load_config
from steering_core.errors import ConfigError


def configured(*entries):
    """The configuration after ``--config`` with these entries, as Snakemake reads them."""
    given, config = parse_config(entries), copy.deepcopy(CONFIG)
    update_config(config, given)
    return with_nulls(config, given)


@pytest.mark.parametrize("word", ["null", "~", "NULL"])
def test_an_arm_is_left_out(word):
    name, sections = "demo_praise_all", "settings: {arms: {caa: %s, corrsteer_p: {scale: 2}}}"
    config = configured("corrsteer={experiments: {demo_praise_all: {%s}}}" % (sections % word))
    arms = find_corrsteer(config, name).settings.arms
    assert "caa" not in arms and arms["corrsteer_p"].scale == 2.0
    assert "corrsteer_s" in arms


def test_null_at_top_level():
    assert find_corrsteer(configured("test_rows=null"), "gemma2b_mmlu").settings.test_rows is None
    assert find_corrsteer(configured("new_tokens=null"), "demo_praise").settings.new_tokens is None


def test_null_where_there_is_none_is_named():
    for entry in ("rows_per_class=null", "strengths=[0.5, null]", "settings={topk: null}"):
        key = entry.split("=")[0].replace("settings", "topk")
        with pytest.raises(ConfigError, match=rf"{key}.*got null"):
            load_config(configured(entry))


def test_what_was_not_given_stays():
    config = {"a": "null", "b": {"c": "null", "d": ["null"]}}
    assert with_nulls(config, {}) == config
    assert with_nulls(config, {"b": {"c": "null"}}) == {
        "a": "null",
        "b": {"c": None, "d": ["null"]},
    }
    assert with_nulls(yaml.safe_load("{a: [1, x]}"), {"a": ["1", "x"]}) == {"a": [1, "x"]}
