"""The frame around every stage, and its log."""

import errno
import gc
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from steering_core.errors import ConfigError
from steering_core.runtime.job import job, log_to
from steering_core.runtime.machine import running_versions
from steering_core.storage.files import claim_of, write_json, write_text
from steering_core.storage.integrity import check_seal, seal, seal_of

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The script's object of a stage with one input and one output."""
    for name in OFFLINE:  # which the stage sets, for its process
        monkeypatch.setenv(name, "0")
    # Else the stage would give this process, and so all later tests, its own number of threads.
    monkeypatch.setenv("STEERING_THREADS", str(torch.get_num_threads()))
    (tmp_path / "in").write_text("input")
    log = tmp_path / "logs" / "stage.log"
    return SimpleNamespace(
        input=[str(tmp_path / "in")],
        output=[str(tmp_path / "out")],
        log=[str(log)],
        params={"settings": {"batch_tokens": 2048, "batch_prompts": 1, "seed": 0}},
    )


def log_of(stage) -> str:
    return Path(stage.log[0]).read_text()


def test_outputs_are_sealed_and_sealed_inputs_checked(stage):
    seal(stage.input[0])
    with job(stage):
        Path(stage.output[0]).write_text("output")
    assert check_seal(stage.output[0])
    Path(stage.input[0]).write_text("inpuT")
    with pytest.raises(SystemExit) as caught, job(stage):
        raise AssertionError("must not run")
    assert caught.value.code == 1
    assert "is not what its stage wrote" in log_of(stage) and "Traceback" not in log_of(stage)


def test_a_stage_that_fails_seals_nothing(stage):
    with pytest.raises(ZeroDivisionError), job(stage):
        Path(stage.output[0]).write_text("output")
        _ = 1 / 0
    assert not seal_of(stage.output[0]).exists()


def test_a_newer_job_of_the_same_output_wins(stage):
    with pytest.raises(SystemExit), job(stage):
        claim_of(stage.output[0]).write_text("of the newer one")
        write_text(stage.output[0], "older")
    assert "by a newer job" in log_of(stage) and not Path(stage.output[0]).exists()


def test_library_versions_that_changed_since_the_fetch_stage_are_logged(stage, tmp_path):
    now = running_versions()
    write_json(tmp_path / "resources.json", {"versions": {**now, "torch": "0.1"}})
    Path(stage.output[0]).write_text("output")
    stage.input = Inputs(stage.input)
    stage.input.resources = str(tmp_path / "resources.json")
    with job(stage):
        pass
    assert (
        f"WARNING steering_core.runtime.job: {stage.input.resources} was made with torch 0.1 (now"
        in (log_of(stage))
    )
    write_json(tmp_path / "resources.json", {"versions": now})
    with job(stage):
        pass
    assert "WARNING" not in log_of(stage)


class Inputs(list):
    """As the script's object has them, by place and by name."""


CANCELLED = """
import signal
import time
from types import SimpleNamespace
from steering_core.runtime.job import job, log_to
from steering_core.storage.files import atomic_path

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under a background process
stage = SimpleNamespace(input=[], output=["out"], log=["logs/stage.log"], params={})
with job(stage), atomic_path("out") as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("sent", "said"),
    [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted: run the same command")],
)
def test_a_cancelled_job_leaves_nothing_half_done(tmp_path, sent, said):
    process = subprocess.Popen(
        [sys.executable, "-c", CANCELLED],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    process.send_signal(sent)
    assert process.wait(120) == (143 if sent == signal.SIGTERM else -signal.SIGINT)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    log = (tmp_path / "logs" / "stage.log").read_text()
    assert said in log and "Traceback" not in log


class FakeCudaError(RuntimeError):
    """torch.OutOfMemoryError is a RuntimeError."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("4 GiB"),
        FakeCudaError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_which_number_to_set(stage, error):
    stage.rule = "cache_activations"
    stage.params["model"] = {"dtype": "bfloat16"}
    with pytest.raises(SystemExit), job(stage):
        raise error
    assert (
        "out of memory: run again with --config batch_tokens=1024, or lower max_tokens, or give"
        in log_of(stage)
    )
    assert "dtype" not in log_of(stage) and "Traceback" not in log_of(stage)


def test_out_of_memory_where_no_number_helps(stage):
    with pytest.raises(SystemExit), job(stage):
        raise MemoryError
    assert "out of memory: give the job more memory" in log_of(stage)


def test_a_log_that_cannot_be_written(stage, monkeypatch, capsys):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("steering_core.runtime.job.logging.FileHandler", refuse)
    with pytest.raises(SystemExit), job(stage):
        raise AssertionError("must not run")
    assert "cannot be written: Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize("network", [False, True])
def test_only_stages_that_fetch_have_a_network(stage, network):
    Path(stage.output[0]).write_text("output")
    with job(stage, network=network):
        assert [os.environ[name] for name in OFFLINE] == (["0", "0"] if network else ["1", "1"])


def test_garbage_collection_is_rare_while_a_stage_imports(stage):
    Path(stage.output[0]).write_text("output")
    own = gc.get_threshold()
    try:
        with job(stage):
            assert gc.isenabled() and gc.get_threshold()[0] == 10_000
    finally:
        gc.set_threshold(*own)


def test_records_and_warnings_go_to_the_file_and_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "deep" / "job.log"
    with log_to(path):
        logging.getLogger("steering_core.thing").info("first ünïcode")
        warnings.warn("take care", stacklevel=1)
    text = path.read_text(encoding="utf-8")
    assert "INFO steering_core.thing: first ünïcode" in text
    assert "take care" in text
    assert "first" in capsys.readouterr().err


def test_a_user_error_is_its_message_and_ends_the_job(tmp_path: Path):
    with pytest.raises(SystemExit) as caught, log_to(tmp_path / "job.log"):
        raise ConfigError("change this")
    assert caught.value.code == 1
    text = (tmp_path / "job.log").read_text()
    assert "change this" in text
    assert "Traceback" not in text


def test_any_other_error_keeps_its_traceback_and_is_raised(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), log_to(tmp_path / "job.log"):
        _ = 1 / 0
    text = (tmp_path / "job.log").read_text()
    assert "Traceback" in text and "ZeroDivisionError" in text


@pytest.mark.parametrize("error", [None, ConfigError, ValueError, KeyboardInterrupt])
def test_logging_is_put_back(tmp_path: Path, error: type | None):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, warnings.showwarning, list(warnings.filters))
    try:
        with log_to(tmp_path / "job.log"):
            assert len(root.handlers) == len(before[0]) + 2
            warnings.simplefilter("ignore")
            if error is not None:
                raise error("x")
    except (SystemExit, ValueError, KeyboardInterrupt):
        pass
    after = (list(root.handlers), root.level, warnings.showwarning, list(warnings.filters))
    assert after == before


def test_a_second_run_starts_a_new_log(tmp_path: Path):
    for word in ("one", "two"):
        with log_to(tmp_path / "job.log"):
            logging.getLogger("x").info(word)
    text = (tmp_path / "job.log").read_text()
    assert "two" in text and "one" not in text
