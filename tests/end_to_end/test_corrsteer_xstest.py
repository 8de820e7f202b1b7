"""CorrSteer through the workflow, on real rows: A and a transfer, with two seeds.

test_corrsteer_llama8.py has S and P.
"""

import copy
import os
import shutil
from pathlib import Path

import forked_jobs
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RUN = "gpt2_xstest"
LEFT_OUT = dict.fromkeys(
    [
        "random_feature",
        "random_all",
        "spare_mi",
        "dsg_fisher",
        "caa",
        "corrsteer_s",
        "corrsteer_p",
    ]
)
ARMS = {
    **LEFT_OUT,
    "corrsteer_a": {"strategy": "all", "scale": 20.0},
    # From the same experiment, which costs no second selection.
    "transferred": {"features_from": {"experiment": RUN, "arm": "corrsteer_a"}},
}
SMALL = {
    **{"seeds": [0, 1], "train_rows": 24, "validation_rows": 8, "test_rows": 12},
    **{"min_outcomes": 1},
    **{"new_tokens": 4, "layers": [4, 7], "long_prompts": "drop", "bootstrap_resamples": 50},
    **{"sparse_methods": {"methods": []}},
}
SECTION = {
    "models": {
        "gpt2": {
            "id": "gpt2",
            "sae": {"release": "gpt2-small-res-jb", "id": "blocks.{layer}.hook_resid_pre"},
            "paired": False,
        }
    },
    "experiments": {
        RUN: {
            "model": "gpt2",
            "task": "xstest",
            "settings": {**SMALL, "arms": ARMS},
        }
    },
}


def run(directory: Path, section: dict) -> str:
    """Make the table in ``directory`` with some configuration; returns what is printed."""
    (directory / "small.yaml").write_text(yaml.safe_dump({"corrsteer": section}))
    done = forked_jobs.run(
        [
            *("--cores", "2", "--directory", str(directory)),
            *(f"results/{RUN}/corrsteer.csv", "--configfile", str(directory / "small.yaml")),
        ],
        env={**os.environ, "HF_HOME": str(directory / "hf")},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


@pytest.fixture(scope="module")
def finished(hub, tmp_path_factory):
    directory = tmp_path_factory.mktemp(RUN)
    shutil.copy(ROOT / "config.yaml", directory)
    run(directory, SECTION)
    return directory / "results"


@pytest.fixture(scope="module")
def table(finished):
    return pd.read_csv(finished / RUN / "corrsteer.csv", dtype={"seed": str})


def test_every_method_has_a_row_for_each_seed_and_one_for_all(table):
    methods = ["unsteered", "corrsteer_a", "transferred"]
    rows = [(method, seed) for method in methods for seed in ("0", "1", "all")]
    assert sorted(zip(table["method"], table["seed"], strict=True)) == sorted(rows)


def test_what_is_measured_is_spread_over_the_seeds(table):
    assert table["status"].eq("ok").all()
    assert table["accuracy"].between(0, 1).all()
    whole = table[table["seed"] == "all"]
    assert (whole["n"] == 24).all() and (whole["n_seeds"] == 2).all()
    assert whole["seeds"].str.split().str.len().eq(2).all()
    assert whole["accuracy_std"].notna().all()
    assert (table.loc[table["seed"] != "all", "n"] == 12).all()
    per_seed = table[table["seed"] != "all"].groupby("method")["accuracy"]
    assert whole.set_index("method")["accuracy"].to_dict() == pytest.approx(
        per_seed.mean()[whole["method"]].to_dict()
    )


def test_a_steers_every_layer(table):
    rows = table[table["seed"] != "all"].set_index("method")
    assert {tuple(cell.split()) for cell in rows.loc["corrsteer_a", "layers"]} == {("4", "7")}


def test_a_transfer_steers_with_the_vectors_of_the_other_arm(finished, table):
    for seed in (0, 1):
        here = finished / f"{RUN}/corrsteer/seed-{seed}"
        assert not (here / "plans/transferred.safetensors").exists()
        own, transferred = (
            pd.read_parquet(here / f"answers/{arm}.parquet")
            for arm in ("corrsteer_a", "transferred")
        )
        pd.testing.assert_frame_equal(own, transferred)
        assert (transferred["norm"] > 0).all() and (transferred["n_features"] == 2).all()


def test_one_process_a_seed_answers_under_all_arms(finished):
    for seed in (0, 1):
        answers = pd.read_parquet(finished / f"{RUN}/corrsteer/seed-{seed}/answers-0.parquet")
        assert answers["method"].unique().tolist() == ["unsteered", "corrsteer_a", "transferred"]
    logs = (finished / RUN / "logs").glob("corrsteer_answer-*.log")
    assert {log.stem for log in logs} == {"corrsteer_answer-0-0", "corrsteer_answer-1-0"}


def test_a_new_arm_is_the_only_one_that_is_answered_under(finished, tmp_path):
    directory = shutil.copytree(finished.parent, tmp_path / "again", symlinks=True)
    section = copy.deepcopy(SECTION)
    arms = section["experiments"][RUN]["settings"]["arms"]
    arms["stronger"] = {"strategy": "all", "scale": 40.0}
    folder = directory / f"results/{RUN}/corrsteer"

    def kept():
        return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/answers/*.parquet")}

    before = kept()
    ran = {line.split()[0] for line in run(directory, section).splitlines() if line.strip()}
    assert {"corrsteer_plan", "corrsteer_answer"} <= ran and "corrsteer_select" not in ran
    after = kept()
    assert {name: after[name] for name in before} == before
    assert {Path(name).stem for name in set(after) - set(before)} == {"stronger"}
    table = pd.read_csv(directory / f"results/{RUN}/corrsteer.csv").set_index("method")
    assert table.loc["stronger", "norm_mean"].tolist() == pytest.approx(
        (2 * table.loc["corrsteer_a", "norm_mean"]).tolist()
    )
