"""The profiles; the status script of the generic one against a stand-in for PBS."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

PROFILES = Path(__file__).resolve().parents[2] / "profiles"


@pytest.mark.parametrize(
    ("record", "code", "state"),
    [
        ("job_state = Q", 0, "running"),
        ("job_state = R", 0, "running"),
        ("job_state = F\n    Exit_status = 0", 0, "success"),
        ("job_state = F\n    Exit_status = 1", 0, "failed"),
        ("job_state = F\n    Exit_status = -11", 0, "failed"),
        ("job_state = F", 0, "failed"),  # deleted before it ran
        ("", 1, "running"),  # the server is busy
    ],
)
def test_state_of_a_job(tmp_path, record, code, state):
    qstat = tmp_path / "qstat"
    qstat.write_text(f"#!/bin/sh\nprintf '    {record!s}\\n'\nexit {code}\n".replace("\n  ", "\\n"))
    qstat.chmod(0o755)
    done = subprocess.run(
        [str(PROFILES / "cluster-generic" / "pbs_status.sh"), "12.server"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == state


@pytest.mark.parametrize("name", ["slurm", "cluster-generic"])
def test_profiles_recover(name):
    profile = yaml.safe_load((PROFILES / name / "config.yaml").read_text())
    assert profile["rerun-incomplete"] and profile["retries"] >= 1
    assert profile["latency-wait"] >= 30


def test_the_status_command_is_squeue():
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert profile["slurm-status-command"] == "squeue"


def test_one_machine_runs_no_more_models_than_fit():
    with (PROFILES / "default" / "config.yaml").open() as file:
        resources = ProfileConfigFileParser().parse(file)["resources"]
    found = dict(entry.split("=") for entry in resources)
    assert found["gpu"] == "1"
    assert int(found["mem_mb"]) == max(psutil.virtual_memory().total // 10**6, 2 * 16000)
