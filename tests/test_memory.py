"""A stage that ran out of memory names what lowers its memory, and nothing else."""

import re
from pathlib import Path

import pytest

from steering_core.config.corrsteer import CorrSteerSettings
from steering_core.config.settings import Settings
from steering_core.memory import NEEDS, memory_advice

RULES = Path(__file__).resolve().parent.parent / "rules"
MORE = "give the job more memory"
#: From this many MB on a stage says what to change.
MUCH = 8000


def rules() -> dict[str, str]:
    """The text of every rule."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(RULES.glob("*.smk")))
    parts = re.split(r"^rule (\w+):$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_stage_that_needs_much_memory_has_its_own_advice():
    large = {
        name
        for name, text in rules().items()
        if any(int(mb) >= MUCH for mb in re.findall(r"megabytes\((\d+)\)", text))
    }
    assert len(large) > 10 and large <= NEEDS.keys() <= rules().keys()


@pytest.mark.parametrize("stage", NEEDS)
def test_settings_that_are_named_exist(stage):
    known = CorrSteerSettings if stage.startswith("corrsteer") else Settings
    names = {*NEEDS[stage].settings, NEEDS[stage].batch} - {""}
    assert names <= known.model_fields.keys()


@pytest.mark.parametrize("stage", NEEDS)
def test_a_dtype_is_proposed_only_where_a_model_is_loaded(stage):
    advice = memory_advice(stage, {}, "float32")
    assert ("dtype" in advice) == NEEDS[stage].model
    assert "dtype" not in memory_advice(stage, {}, "bfloat16")
    assert advice.split(", or ")[0] != MORE and MORE in advice


def test_a_batch_that_was_halved_down_to_one_is_not_proposed():
    given = {"batch_prompts": 50, "new_tokens": 100, "max_tokens": 128}
    advice = memory_advice("generate", given)
    assert advice.startswith("run again with --config new_tokens=50 max_tokens=64, or set")
    killed = memory_advice("generate", given, killed=True)
    assert killed.startswith("run again with --config batch_prompts=25 new_tokens=50")
    assert memory_advice("generate", {}, killed=True).startswith("lower batch_prompts or ")


def test_what_cannot_be_halved_is_not_proposed():
    assert memory_advice("solve_variants", {"variant_rows": 1}).startswith(
        "lower prefilter_features, or choose a narrower SAE"
    )
    assert memory_advice("no such stage", {"batch_tokens": 2048}).startswith(MORE)
