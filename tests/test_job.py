"""What surrounds every stage."""

import errno
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from steering_core.errors import ResourceError
from steering_core.job import explain_exhaustion, fix_threads, job
from steering_core.storage.atomic import write_json, write_text
from steering_core.storage.claims import claim_of
from steering_core.storage.seals import check_seal, seal, seal_of
from steering_core.versions import running_versions

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The script's object of a stage with one input and one output."""
    for name in OFFLINE:  # which the stage sets, for its process
        monkeypatch.setenv(name, "0")
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


def test_other_versions_than_those_of_the_fetch_stage_are_said(stage, tmp_path):
    now = running_versions()
    write_json(tmp_path / "resources.json", {"versions": {**now, "torch": "0.1"}})
    Path(stage.output[0]).write_text("output")
    stage.input = Inputs(stage.input)
    stage.input.resources = str(tmp_path / "resources.json")
    with job(stage):
        pass
    assert f"WARNING steering_core.job: {stage.input.resources} was made with torch 0.1 (now" in (
        log_of(stage)
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
from steering_core.job import job
from steering_core.storage.atomic import atomic_path

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under a background process
stage = SimpleNamespace(input=[], output=["out"], log=["logs/stage.log"], params={})
with job(stage), atomic_path("out") as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("sent", "said"),
    [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted: the same")],
)
def test_a_cancelled_job_leaves_nothing_half_done(tmp_path, sent, said):
    process = subprocess.Popen(
        [sys.executable, "-c", CANCELLED],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    process.send_signal(sent)
    assert process.wait(30) == (143 if sent == signal.SIGTERM else -signal.SIGINT)
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


def test_a_log_that_cannot_be_written(stage, monkeypatch, capsys):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("steering_core.logs.logging.FileHandler", refuse)
    with pytest.raises(SystemExit), job(stage):
        raise AssertionError("must not run")
    assert "cannot be written: Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize("network", [False, True])
def test_only_stages_that_fetch_have_a_network(stage, network):
    Path(stage.output[0]).write_text("output")
    with job(stage, network=network):
        assert [os.environ[name] for name in OFFLINE] == (["0", "0"] if network else ["1", "1"])


def test_python_looks_for_cycles_rarely_while_a_stage_imports(stage):
    Path(stage.output[0]).write_text("output")
    own = gc.get_threshold()
    try:
        with job(stage):
            assert gc.isenabled() and gc.get_threshold()[0] == 10_000
    finally:
        gc.set_threshold(*own)


@pytest.mark.parametrize(("given", "threads"), [(None, 2), ("1", 1), ("3", 3)])
def test_threads_do_not_follow_the_cores(given, threads):
    code = (
        "from steering_core.job import fix_threads; fix_threads()\n"
        "import torch; print(torch.get_num_threads())"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    env.pop("STEERING_THREADS", None)
    if given is not None:
        env["STEERING_THREADS"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == threads


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", ""])
def test_threads_that_are_none(monkeypatch, given):
    monkeypatch.setenv("STEERING_THREADS", given)
    with pytest.raises(ResourceError, match="STEERING_THREADS"):
        fix_threads()


@pytest.mark.parametrize(("cores", "policy"), [(1, "PASSIVE"), (2, None), (None, None)])
def test_threads_without_a_core_of_their_own_sleep(monkeypatch, cores, policy):
    monkeypatch.setattr(os, "environ", {"STEERING_THREADS": "2"})
    fix_threads(cores)
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert ("GOMP_SPINCOUNT" in os.environ) == (policy is None)


def test_the_spins_of_the_user_are_kept(monkeypatch):
    monkeypatch.setattr(os, "environ", {"GOMP_SPINCOUNT": "7"})
    fix_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
