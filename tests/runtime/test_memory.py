"""A job asks for memory by what it loads; one that runs out names what needs less of it.

What is asked for grows with the model, its SAEs and its judges. A stage that ran out names what
lowers its memory, and nothing else.
"""

import errno
import json
import re
from pathlib import Path

import pytest

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.schema import Settings
from steering_core.errors import ResourceError
from steering_core.runtime.memory import (
    BASE,
    NEEDS,
    explain_exhaustion,
    memory_advice,
    read_sizes,
    sizes_of,
)

RESOURCES = {
    "model": {"id": "m", "dtype": "bfloat16"},
    "shape": {"d_model": 2000},
    "saes": [{"d_sae": 1000}, {"d_sae": 16000}],
    "parameters": {"model": 2_000_000_000, "judges": 100_000_000},
}


def test_sizes_in_memory():
    sizes = sizes_of(RESOURCES)
    assert (sizes.model, sizes.weights32, sizes.judges) == (4000, 8000, 400)
    assert (sizes.sae, sizes.saes) == (256, 272)
    assert sizes.megabytes() == BASE
    assert sizes.megabytes(model=1.5, sae=2, judges=1) == BASE + 6000 + 512 + 400
    assert sizes.megabytes(weights32=5, saes=1) == BASE + 40_000 + 272
    assert sizes_of({**RESOURCES, "model": {"dtype": "float32"}}).model == 8000


@pytest.mark.parametrize(("parameters", "cores"), [(10_000_000, 1), (124_000_000, 2)])
def test_a_small_model_keeps_one_core_busy(parameters, cores):
    assert sizes_of({**RESOURCES, "parameters": {"model": parameters, "judges": 0}}).cores == cores


@pytest.mark.parametrize("content", [None, "", "{", "{}", json.dumps({**RESOURCES, "saes": []})])
def test_what_was_not_fetched_or_is_of_before_has_no_sizes(tmp_path, content):
    path = tmp_path / "resources.json"
    if content is not None:
        path.write_text(content)
    assert read_sizes(path) is None


def test_what_was_fetched_is_read(tmp_path):
    (tmp_path / "resources.json").write_text(json.dumps(RESOURCES))
    assert read_sizes(tmp_path / "resources.json") == sizes_of(RESOURCES)


RULES = Path(__file__).resolve().parents[2] / "rules"
MORE = "give the job more memory"
#: From this many MB on a stage says what to change.
MUCH = 8000


def rules() -> dict[str, str]:
    """The text of every rule."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(RULES.glob("*.smk")))
    parts = re.split(r"^(?:rule|use rule (\w+) as) (\w+)(?: with)?:$", text, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for base, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found[name] = body if base is None else found[base] + body
    return found


def test_every_stage_that_needs_much_memory_has_its_own_advice():
    large = {
        name
        for name, text in rules().items()
        if any(int(mb) >= MUCH for mb in re.findall(r"megabytes\((\d+)\b", text))
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


def test_advice_does_not_propose_to_halve_a_batch_of_one():
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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (OSError("[Errno 28] Error writing bytes to file: No space left on device"), "is full"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written"),
        (OSError(errno.ESTALE, "Stale file handle"), "run the same command again once it works"),
    ],
)
def test_disk_trouble_is_named(tmp_path, error, told):
    with pytest.raises(ResourceError, match=told), explain_exhaustion(tmp_path):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError("odd"), KeyError("k")])
def test_other_errors_pass_through(tmp_path, error):
    with pytest.raises(type(error)) as caught, explain_exhaustion(tmp_path):
        raise error
    assert caught.value is error
