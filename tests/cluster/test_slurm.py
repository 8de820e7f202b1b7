"""The SLURM profile on a real SLURM: jobs are submitted, cancelled, and a node goes down."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

from ledger import record  # noqa: E402
from slurm_cluster import client, running, skip_without_slurm, slurm, wait_for  # noqa: E402
from tiny_demo import SIZES, copy_of, digests, environment, finished_demo  # noqa: E402

QUICKLY = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_slurm()
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster"):
        yield


def submit(directory: Path, *targets: str) -> subprocess.Popen:
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--workflow-profile", str(ROOT / "profiles" / "slurm"), *QUICKLY),
        *("--directory", str(directory), *targets, "--config", *SIZES),
    ]
    log = (directory / "run.log").open("w")
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT
    )


def log_of(directory: Path) -> str:
    return (directory / "run.log").read_text()[-6000:]


def memory_of_jobs() -> set[int]:
    """What the jobs asked for, in MB."""
    found = re.findall(r"MinMemoryNode=(\d+)([MG]?)", client("scontrol", "show", "jobs"))
    return {int(n) * (1024 if unit == "G" else 1) for n, unit in found}


def test_cancelled_jobs_and_a_lost_node(cluster, tmp_path):
    """One shard is cancelled, the other loses its node: the files are those of a local run."""
    directory = copy_of(
        finished_demo(), tmp_path / "demo", ("activations", "probe*", "evaluation_probe*")
    )
    target = "results/demo/probe.safetensors"
    run = submit(directory, target)
    try:
        cancelled, lost = wait_for(
            lambda: len(found := [j for j in running() if "cache" in j[2]]) == 2 and found,
            "both shards to run",
            60,
        )
        client("scancel", cancelled[0])
        client("scontrol", "update", f"nodename={lost[1]}", "state=down", "reason=test")
        wait_for(lambda: client("squeue", "-h", "-j", lost[0], "-o", "%T").strip() == "PENDING",
                 "the lost job to be queued again", 30)  # fmt: skip
        # SLURM holds a requeued job back for two minutes; the test does not wait.
        client("scontrol", "update", f"jobid={lost[0]}", "starttime=now")
        assert run.wait(timeout=240) == 0, log_of(directory)
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait(60)
        client("scontrol", "update", "nodename=n1,n2", "state=resume")
    assert (
        digests(directory)[Path(target).relative_to("results").as_posix()]
        == digests(finished_demo())["demo/probe.safetensors"]
    )
    expected = digests(finished_demo())
    parts = {name: digest for name, digest in digests(directory).items() if "activations" in name}
    assert len(parts) >= 3 and all(expected[name] == digest for name, digest in parts.items())
    # The retry of the cancelled shard asked for twice the memory.
    assert {16000, 32000} <= memory_of_jobs()
    for rule in ("cache_activations-0", "cache_activations-1", "activation_manifest", "fit_probes"):
        assert (directory / f"results/demo/logs/{rule}.log").is_file()
    record("SLURM: scancel of a running job", injected=1, survived=1, bytes_lost=0)
    record("SLURM: a node goes down", injected=1, survived=1, bytes_lost=0)


def test_tiny_jobs_go_out_as_one(cluster, tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo", ("pareto.csv",))
    before = len(re.findall(r"JobId=", client("scontrol", "show", "jobs")))
    run = submit(directory, "results/demo/pareto.svg")
    try:
        assert run.wait(timeout=120) == 0, log_of(directory)
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait(60)
    assert (directory / "results/demo/pareto.svg").stat().st_size > 1000
    assert digests(directory)["demo/pareto.csv"] == digests(finished_demo())["demo/pareto.csv"]
    assert len(re.findall(r"JobId=", client("scontrol", "show", "jobs"))) == before + 1
