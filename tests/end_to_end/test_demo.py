"""One small run of the whole workflow on the demo, through Snakemake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from steering_core.tables.columns import validate_pareto

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "rows_per_class=150",
    "n_prompts=12",
    "n_validation_prompts=4",
    "new_tokens=12",
    "strengths=[0.25,1.0]",
    "qp_tau=[2.0,6.0]",
    "socp_tau=[2.0]",
    "socp_epsilon=[0.5,20.0]",
    "bootstrap_resamples=200",
    "methods=[no_steering,caa_mean_diff,topk_features,convex_optimal,qp_optimal,qp_adaptive]",
    "demo_world={training_steps: 300, documents: 6000, sae_samples: 40000}",
]


def snakemake(directory: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", str(directory)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    return subprocess.run(
        [*command, *arguments, "--config", *SMALL],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished small demo in a directory of its own."""
    directory = tmp_path_factory.mktemp("demo")
    shutil.copy(ROOT / "config.yaml", directory)
    run = snakemake(directory, "demo")
    assert run.returncode == 0, run.stderr[-4000:]
    return directory / "results" / "demo"


def test_the_table_keeps_to_its_columns(world):
    table = pd.read_csv(world / "pareto.csv")
    validate_pareto(table)
    assert set(table["method"]) >= {"no_steering", "caa_mean_diff", "qp_optimal", "convex_optimal"}


def test_every_product_is_there(world):
    for name in ("pareto.svg", "sweep.svg", "generations.html", "features.html", "frontier.svg"):
        assert (world / name).stat().st_size > 1000, name


def test_programs_are_solved_for_every_input_and_certified(world):
    solutions = pd.read_parquet(world / "solutions.parquet")
    programs = solutions[solutions["method"].isin(["qp_optimal", "convex_optimal"])]
    assert set(programs["status"]) <= {"optimal", "already_satisfied", "infeasible"}
    optimal = programs[programs["status"] == "optimal"]
    assert len(optimal) > 0
    assert (optimal["relative_gap"].abs() < 1e-8).all()
    assert (optimal["dual_violation"] < 1e-8).all()
    # One solve per input, not one for all.
    assert optimal.groupby(["method", "strength_index"])["shortfall"].nunique().min() > 1
    infeasible = programs[programs["status"] == "infeasible"]
    assert infeasible["residual_norm"].isna().all()


def test_a_finished_run_is_not_repeated(world):
    again = snakemake(world.parents[1], "--dry-run", "demo")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_no_stage_leaves_temporary_files_or_an_empty_log(world):
    assert not list(world.rglob("*.tmp"))
    logs = list((world / "logs").glob("generate-*.log"))
    assert logs


def test_manifest_says_what_was_run(world):
    manifest = json.loads((world / "activations" / "manifest.json").read_text())
    assert manifest["model"]["revision"].startswith("sha256:")
    assert {site["hook_name"] for site in manifest["sites"]} == {
        f"blocks.{layer}.hook_resid_post" for layer in range(4)
    }
