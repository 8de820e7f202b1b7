"""The profiles; the commands of the generic one against a stand-in for PBS."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser
from snakemake.utils import format as fill_in

PROFILES = Path(__file__).resolve().parents[2] / "profiles"

#: A queue that takes PBS's options, runs a job at once and remembers how it ended.
QSUB = """#!/bin/sh
while getopts VN:j:o:l: option; do
    case $option in
    V) echo "token=$HF_TOKEN$HUGGING_FACE_HUB_TOKEN home=$HF_HOME" ;;
    \\?) exit 2 ;;
    *) echo "$option=$OPTARG" ;;
    esac
done >"$QUEUE/asked"
shift $((OPTIND - 1))
[ $# = 1 ] || exit 2
sh "$1" >&2
printf 'Job Id: 7.server\\n    job_state = F\\n    Exit_status = %s\\n' $? >"$QUEUE/7.server"
echo 7.server
"""
QSTAT = """#!/bin/sh
[ "$1 $2" = "-x -f" ] && cat "$QUEUE/$3"
"""


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


def commands() -> dict[str, str]:
    """Submit, status and cancel command, as Snakemake reads them from the profile."""
    with (PROFILES / "cluster-generic" / "config.yaml").open() as file:
        found = ProfileConfigFileParser().parse(file)
    names = ("submit", "status", "cancel")
    return {name: found[f"cluster-generic-{name}-cmd"] for name in names}


@pytest.mark.parametrize(("job", "state"), [("echo done", "success"), ("exit 3", "failed")])
def test_a_job_is_submitted_and_looked_after(tmp_path, job, state):
    """The lines of the profile, filled in and run as the executor does it."""
    for name, content in (("qsub", QSUB), ("qstat", QSTAT)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "a job script.sh"
    script.write_text(f"#!/bin/sh\n{job}\n")
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{"QUEUE": str(tmp_path), "HF_HOME": "/shared/hf"},
        **dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), "hf_secret"),
    }

    def shell(line: str) -> str:
        options = {"shell": True, "env": env, "cwd": tmp_path, "text": True}
        return subprocess.run(line, **options, check=True, capture_output=True).stdout.strip()

    command = commands()
    asked = SimpleNamespace(mem_mb=16000, runtime=240, gpu=1)
    line = fill_in(command["submit"], threads=2, resources=asked, rule="generate", dependencies="")
    assert shell(f'{line} "{script}"') == "7.server"
    assert (tmp_path / "asked").read_text().splitlines() == [
        "token= home=/shared/hf",  # the token stays out of the record
        *("N=generate", "j=oe", "o=.snakemake/"),
        "l=select=1:ncpus=2:mem=16000mb:ngpus=1",
        "l=walltime=14400",
    ]
    assert shell(f"{command['status']} '7.server'") == state
    assert command["cancel"] == "qdel"


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
