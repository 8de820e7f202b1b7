"""Both halves meet: a method of one answers the questions of the other."""

import numpy as np
import pandas as pd
import yaml
from peft import PeftModel
from tiny_demo import SIZES, copy_of, finished_demo, run
from transformers import AutoModelForCausalLM

from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan
from steering_core.models.site import site_at
from steering_core.storage.files import read_json

ANSWERS = "results/tiny_praise/corrsteer/seed-0/answers/{}.parquet"
ARMS = {
    "static": {"tau": 2.0, "lam": 1.0},
    "chosen": "selected",
}


def test_a_program_of_the_demo_answers_the_questions_of_praise(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    arms = config["corrsteer"]["models"]["demo"]["settings"]["arms"]
    for name, strength in ARMS.items():
        source = {"experiment": "demo", "method": "qp_optimal", "strength": strength}
        arms[name] = {"intervention_from": source}
    path.write_text(yaml.safe_dump(config))
    unsteered, *targets = (ANSWERS.format(name) for name in ("unsteered", *ARMS))
    done = run(directory, *targets, forked=True)
    assert done.returncode == 0, done.stderr[-4000:]
    # Nothing that was there is made again.
    ran = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("corrsteer_")]
    assert set(ran) == {"corrsteer_experiment_method"}
    plain, static, chosen = (
        pd.read_parquet(directory / target) for target in (unsteered, *targets)
    )
    assert static["example_id"].tolist() == plain["example_id"].tolist()
    assert set(static["status"]) == {"ok"} and set(static["strength"]) == {"tau 2, lambda 1"}
    assert {tuple(layers) for layers in static["layers"]} == {(1,)}
    steered = static["norm"] > 0
    assert steered.any() and (static.loc[steered, "n_features"] > 0).all()
    assert (static.loc[~steered, "text"] == plain.loc[~steered, "text"]).all()
    pareto = pd.read_csv(directory / "results/demo/pareto.csv")
    assert (
        pareto.query("method == 'qp_optimal'")["selected"].any() == (chosen["status"] == "ok").all()
    )


def test_a_plan_of_praise_has_its_rows_in_the_demos_tables(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["corrsteer"]["models"]["demo"]["settings"]["arms"]["by_hand"] = {"strategy": "all"}
    # This small model never succeeds, so no arm has a vector of its own.
    plans = directory / "results/tiny_praise/corrsteer/seed-0/plans"
    old = Plan.load(plans / "corrsteer_p.safetensors")
    assert old.vectors == {}
    layer = read_json(directory / "results/demo/layer.json")
    site = site_at(layer)
    feature = dict.fromkeys(FEATURE_COLUMNS, 0) | {"layer": 1, "steered": True, "score": 1.0}
    features = pd.DataFrame([feature]).astype(FEATURE_COLUMNS)
    vector = np.random.default_rng(0).standard_normal(64).astype("f4")
    Plan(features, {1: vector}, {1: site}, {}).save(plans / "by_hand.safetensors")
    (plans / "by_hand.csv").write_text(features.to_csv(index=False))
    plan = {"experiment": "tiny_praise", "arm": "by_hand", "scales": [1.0, 4.0]}
    config["experiments"]["demo"]["settings"]["plans"] = {"praised": plan}
    path.write_text(yaml.safe_dump(config))
    before = pd.read_csv(directory / "results/demo/pareto.csv")
    done = run(directory, "results/demo/pareto.csv", "results/demo/generations.html", forked=True)
    assert done.returncode == 0, done.stderr[-4000:]
    table = pd.read_csv(directory / "results/demo/pareto.csv")
    rows = table[table["method"] == "praised"]
    assert rows["strength_name"].tolist() == ["scale"] * 2 and rows["strength"].tolist() == [1, 4]
    np.testing.assert_allclose(
        rows["residual_norm_mean"].iloc[1], 4 * rows["residual_norm_mean"].iloc[0]
    )
    assert (rows["l0_mean"] == 1).all() and (rows["prompt_l0_mean"] == 1).all()
    assert (rows["n_texts"] == 4).all() and rows[
        ["kl_mean", "classifier_rate_steered"]
    ].notna().all(axis=None)
    # It steers the layer of the probe alone, so the probe's logits are known, too.
    assert rows[["probe_score_steered", "eval_flip_rate"]].notna().all(axis=None)
    # The other rows are as before.
    digests = ["config_sha256", "code_sha256", "on_frontier", "frontier_probability"]
    others = table[table["method"] != "praised"].drop(columns=digests)
    pd.testing.assert_frame_equal(
        others.reset_index(drop=True), before.drop(columns=digests), check_dtype=False
    )
    assert "praised" in (directory / "results/demo/generations.html").read_text()


def test_the_demo_looks_elsewhere_at_its_corpus_and_at_praise(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    methods = ["no_steering", "qp_optimal", "prompting", "lora"]
    sizes = [size for size in SIZES if size.split("=")[0] not in ("methods", "elsewhere")]
    sizes += [f"methods=[{','.join(methods)}]", "selection_kl=1000"]
    sizes += ["lora={rank: 2, epochs: 1, learning_rate: 0.01, scales: [1.0]}"]
    sizes += ["elsewhere=[text,praise]", "elsewhere_rows=12"]
    done = run(directory, "results/demo/products.json", forked=True, sizes=sizes)
    assert done.returncode == 0, done.stderr[-4000:]
    folder = directory / "results/demo"
    table = pd.read_csv(folder / "elsewhere.csv")
    table = table.set_index(["method", "probe", "measure"])
    measures = [("text", "kl"), ("text", "perplexity"), ("praise", "accuracy")]
    steered = [*methods[1:], "mean_difference_qp", "mean_difference_dense"]  # two are declared
    assert set(table.index) == {(method, *of) for method in steered for of in measures}
    assert (table["n"] == 12).all() and table["change"].notna().all()
    assert (table.xs("kl", level="measure")["change_low"] > 0).all()
    # A vector is added at every position of neutral text; these two add nothing.
    share = table.xs(("text", "kl"), level=("probe", "measure"))["steered_share"]
    assert share["mean_difference_dense"] == 1 and 0 <= share["qp_optimal"] <= 1
    assert share[["prompting", "lora"]].isna().all()
    # A text before the prompt has its rows in the other tables, without a norm.
    row = pd.read_csv(folder / "pareto.csv").query("method == 'prompting'").iloc[0]
    assert row["n_texts"] == 4 and row["kl_mean"] > 0 and row["strength_name"] == "instruction"
    assert np.isnan(row["prompt_residual_norm_mean"]) and np.isnan(row["prompt_l0_mean"])
    # So has an adapter, which peft loads.
    row = pd.read_csv(folder / "pareto.csv").query("method == 'lora'").iloc[0]
    assert row["n_texts"] == 4 and row["kl_mean"] > 0 and row["strength_name"] == "scale"
    assert np.isnan(row["prompt_residual_norm_mean"]) and np.isnan(row["residual_norm_mean"])
    model = AutoModelForCausalLM.from_pretrained(folder / "language_model")
    PeftModel.from_pretrained(model, folder / "lora")
    dose = pd.read_csv(folder / "dose.csv").set_index("method")
    assert set(dose.index[dose["dose"].isna()]) == {"prompting", "lora"}
    assert dose["anti_steered"].notna().all()
    # One job for each probe keeps the table of each method; the page shows the picture.
    for probe in ("text", "praise"):
        for method in methods:
            assert (folder / f"elsewhere/{probe}/{method}.parquet").is_file()
    assert "What steering costs on other text" in (folder / "index.html").read_text()
    again = run(directory, "results/demo/products.json", "--dry-run", sizes=sizes)
    assert "Nothing to be done" in again.stdout + again.stderr
    # What is kept is not made again.
    kept = folder / "elsewhere/praise/qp_optimal.parquet"
    before = kept.stat().st_mtime_ns
    (folder / "elsewhere/praise.parquet").unlink()
    lost = folder / "elsewhere/praise/prompting.parquet"
    lost.unlink()
    done = run(directory, "results/demo/elsewhere/praise.parquet", forked=True, sizes=sizes)
    assert done.returncode == 0 and kept.stat().st_mtime_ns == before and lost.is_file()
