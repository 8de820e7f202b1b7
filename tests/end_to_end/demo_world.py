"""The demo in small sizes, run once for all tests that read it."""

import shutil
import subprocess
from pathlib import Path

import forked_jobs
from shared_worlds import made_once

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "rows_per_class=150",
    "n_prompts=12",
    "n_validation_prompts=4",
    "new_tokens=12",
    "strengths=[0.25,1.0]",
    "qp_tau=[0.5,2.0]",
    "qp_lambda=[10.0]",
    "socp_tau=[0.5]",
    "socp_epsilon=[0.02,2.0]",
    "variant_rows=12",
    "variant_epsilon=[4.0]",
    "bootstrap_resamples=200",
    "methods=[no_steering,caa_mean_diff,convex_optimal,qp_optimal,qp_adaptive,prompting]",
    "demo_world={training_steps: 1000, documents: 12000}",
    "models={demo: {sae: {train: {tokens: 60000}}}}",
]


def snakemake(directory: Path, *arguments: str, config=SMALL) -> subprocess.CompletedProcess:
    where = ["--cores", "2", "--directory", str(directory)]
    given = [*where, *arguments, "--config", *config]
    return forked_jobs.run(given, env=forked_jobs.offline_environment())


@made_once
def finished_small_demo(parent: Path) -> Path:
    """The working directory of a finished run, made once."""
    shutil.copy(ROOT / "config.yaml", parent)
    run = snakemake(parent, "demo")
    assert run.returncode == 0, run.stderr[-4000:]
    return parent
