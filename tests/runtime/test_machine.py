"""Threads, GPUs and versions of the machine that a stage runs on."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steering_core.errors import ResourceError
from steering_core.runtime import machine
from steering_core.runtime.machine import changed_versions, fix_threads, gpus_on, running_versions

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("given", "threads"), [(None, 2), ("1", 1), ("3", 3)])
def test_threads_do_not_follow_the_cores(given, threads):
    code = (
        "from steering_core.runtime.machine import fix_threads; fix_threads()\n"
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
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # whose threads it would set
    fix_threads(cores)
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    assert ("GOMP_SPINCOUNT" in os.environ) == (policy is None)


def test_the_spins_of_the_user_are_kept(monkeypatch):
    monkeypatch.setattr(os, "environ", {"GOMP_SPINCOUNT": "7"})
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    fix_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize(
    ("device", "here", "asked"),
    [("cuda", False, 1), ("auto", True, 1), ("auto", False, 0), ("cpu", True, 0), ("mps", True, 0)],
)
def test_auto_asks_for_a_gpu_that_is_here(tmp_path, monkeypatch, device, here, asked):
    if here:
        (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    assert gpus_on(device) == asked


def test_versions_are_those_installed_without_the_build(monkeypatch):
    assert running_versions()["pyarrow"] == importlib.metadata.version("pyarrow")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu126")
    assert running_versions()["torch"] == "2.13.0"


def test_what_changed_is_named():
    now = running_versions()
    assert changed_versions(now) == "" and changed_versions({}) == ""
    assert changed_versions({**now, "torch": f"{now['torch']}+cpu"}) == ""
    assert changed_versions({**now, "torch": "0.1"}) == f"torch 0.1 (now {now['torch']})"


def test_the_frame_of_a_stage_fixes_threads_before_the_numeric_libraries_are_there():
    """Its variables have no effect on a library that is imported already."""
    code = (
        "import sys, steering_core.runtime.job\n"
        "print({'numpy', 'pandas', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"
