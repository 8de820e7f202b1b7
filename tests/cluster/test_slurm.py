"""The SLURM profile on a real SLURM: jobs are submitted, cancelled, and lose their node."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from steering_core.runtime.machine import shows_gpu

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

from forked_jobs import standing_for_python  # noqa: E402
from ledger import injecting  # noqa: E402
from slurm_cluster import client, pending, running, skip_without_slurm, slurm, wait_for  # noqa: E402
from tiny_demo import (  # noqa: E402
    PIPELINE,
    SIZES,
    copy_of,
    digests,
    environment,
    finished_demo,
)

QUICKLY = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_slurm()
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster") as nodes:
        yield nodes


def submit(python: Path, directory: Path, *targets: str) -> subprocess.Popen:
    command = [
        *(str(python), "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--workflow-profile", str(ROOT / "profiles" / "slurm"), *QUICKLY),
        *("--directory", str(directory), *targets, "--config", *SIZES),
    ]
    log = (directory / "run.log").open("w")
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT
    )


def log_of(directory: Path) -> str:
    return (directory / "run.log").read_text()[-6000:]


def jobs(what: str) -> list[str]:
    """A field of every job there was."""
    return re.findall(rf"\b{what}=(\S+)", client("scontrol", "show", "jobs"))


def shards(run: subprocess.Popen, directory: Path) -> list[tuple[str, str, str]]:
    """(job, node, comment) of the running shards of the activation cache, while ``run`` lasts."""
    assert run.poll() is None, log_of(directory)
    return [job for job in running() if job[2].startswith("rule_cache_activations_")]


def memory_of_jobs(rule: str) -> set[int]:
    """What the jobs of a rule asked for, in MB."""
    blocks = client("scontrol", "show", "jobs").split("\n\n")
    own = [block for block in blocks if f"Comment=rule_{rule}_" in block]
    found = [re.search(r"\bMinMemoryNode=(\d+)([MG]?)", block) for block in own]
    return {int(n[1]) * (1024 if n[2] == "G" else 1) for n in found if n}


@pytest.mark.timeout(6000)
def test_a_demo_with_a_cancelled_job_and_a_lost_node(cluster, tmp_path):
    """Every stage of pareto.csv is a job of SLURM; one shard is cancelled, the other loses its
    node. The files are those of a local run. The shards are as any job is; other jobs are forks.
    """
    directory = copy_of(finished_demo(), tmp_path / "demo", PIPELINE)
    with (
        standing_for_python(tmp_path, env=environment(), anew=["cache_activations"]) as python,
        injecting("SLURM: scancel of a running job", kept=directory / "results"),
        injecting("SLURM: slurmd is killed", kept=directory / "results"),
    ):
        run = submit(python, directory, "results/demo/pareto.csv", "results/demo/pareto.svg")
        try:
            # The shards may run side by side or one after the other.
            cancelled = wait_for(lambda: shards(run, directory), "a shard to run", 900)[0]
            client("scancel", cancelled[0])
            lost = wait_for(
                lambda: [job for job in shards(run, directory) if job[2] != cancelled[2]],
                "the other shard to run",
                900,
            )[0]
            cluster.kill(lost[1])
            # The controller would find out by itself, after SlurmdTimeout.
            client("scontrol", "update", f"nodename={lost[1]}", "state=down", "reason=test")
            wait_for(lambda: lost[0] in pending(), "the lost job to be queued again", 110)
            # SLURM holds the jobs of a lost node back for two minutes; the test does not wait. They
            # run on the other node: this one, when it comes back, ends what it is still told to.
            queued = pending()
            for job in queued:
                client("scontrol", "update", f"jobid={job}", "starttime=now")
            wait_for(lambda: not set(queued) & set(pending()), "the lost job to run again", 900)
            cluster.start(lost[1])
            client("scontrol", "update", f"nodename={lost[1]}", "state=resume")
            assert run.wait(timeout=3000) == 0, log_of(directory)
        finally:
            if run.poll() is None:
                run.terminate()
                run.wait(60)
        found, expected = digests(directory), digests(finished_demo())
        assert {"demo/pareto.csv", "demo/pareto.svg", "demo/solutions/qp.parquet"} <= set(found)
        assert {name for name in found if found[name] != expected[name]} == set()
    # The retry of the cancelled shard asked for twice the memory.
    asked = memory_of_jobs("cache_activations")
    assert max(asked) == 2 * min(asked)
    rules = {re.sub("^rule_|_wildcards_.*", "", comment) for comment in jobs("Comment")}
    assert {"examples", "solve", "generate", "divergence", "judge", "probe_effects"} <= rules
    # Tiny ones go out as one.
    assert not {"pareto", "pareto_figure"} & rules
    if not shows_gpu():
        said = (directory / "run.log").read_text().count("device: auto finds no GPU")
        assert said == 1
