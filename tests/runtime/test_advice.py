"""What the user is told where a stage failed.

A stage that ran out of memory names what lowers its memory, and nothing else. After a failed run
the user is told which log ended how, in the error's own words.
"""

import errno
import re
from pathlib import Path

import pytest

from steering_core.config.corrsteer_schema import CorrSteerSettings
from steering_core.config.schema import Settings
from steering_core.errors import ConfigError, ResourceError
from steering_core.runtime.advice import (
    NEEDS,
    explain_exhaustion,
    explain_failures,
    memory_advice,
)
from steering_core.runtime.job import log_to

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


def workflow_log(tmp_path: Path, *logs: Path) -> Path:
    """Return the log of Snakemake 9.27 for jobs that failed, alone and in a group."""
    lines = ["localrule fetch:", f"    log: {tmp_path / 'started.log'}", "Error in rule fetch:"]
    lines += [f"    log: {log} (check log file(s) for error details)" for log in logs]
    lines += [f"            log: {logs[0]} (check log file(s) for error details)"]
    path = tmp_path / "snakemake.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def failed_job(path: Path, error: Exception) -> Path:
    with pytest.raises((SystemExit, type(error))), log_to(path):
        raise error
    return path


def test_one_line_a_failed_job(tmp_path: Path):
    (tmp_path / "started.log").write_text("2026-01-01 00:00:00,000 ERROR root: not this one\n")
    ours = failed_job(tmp_path / "ours.log", ConfigError("layer: 12 is out of range"))
    other = failed_job(tmp_path / "other.log", ZeroDivisionError("of nothing"))
    killed = tmp_path / "generate-qp_optimal.log"
    killed.write_text("2026-01-01 00:00:00,000 INFO root: caching\n")
    lines = explain_failures([workflow_log(tmp_path, ours, other, killed)])
    assert lines[:2] == [
        f"{ours}: layer: 12 is out of range",
        f"{other}: the job failed: ZeroDivisionError: of nothing",
    ]
    assert lines[2].startswith(
        f"{killed}: ended without an error message: it was killed, or ran out of memory or time. "
        "If it was memory, lower batch_prompts or new_tokens or max_tokens, or "
    )


def test_a_log_that_is_not_there_is_no_second_failure(tmp_path: Path):
    gone = tmp_path / "gone.log"
    assert explain_failures([workflow_log(tmp_path, gone)])[0].startswith(f"{gone}: ended without")
    assert explain_failures([gone]) == []


def test_nothing_failed(tmp_path: Path):
    (tmp_path / "snakemake.log").write_text("rule a:\n    log: results/a.log\n")
    assert explain_failures([tmp_path / "snakemake.log"]) == []
