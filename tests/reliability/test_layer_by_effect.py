"""`layer: effect` on the demo's world with two layers: it steers the cheaper one, and resumes."""

import json
import re

import pandas as pd
from tiny_demo import SIZES, copy_of, finished_demo, run

from steering_core.tables.columns import validate_table

CHANGED = ("layers=", "layer=", "models=", "n_validation_prompts=", "new_tokens=")
EFFECT = [
    *(size for size in SIZES if not size.startswith(CHANGED)),
    "models={demo: {sae: {train: {layers: [0,1], tokens: 8000}}}}",
    *("layer=effect", "layers=[0,1]", "effect_layers=[0,1]", "strengths=[1.0,2.0,4.0]"),
    *("n_validation_prompts=20", "new_tokens=8", "matched_effect=0.02", "selection_kl=100"),
]
#: What is chosen before a layer is.
_LATER = ("layer*", "resources.json", "dataset.parquet", "examples.*", "activations")


def jobs(printed: str) -> list[str]:
    return re.findall(r"^ *log: results/demo/logs/(\S+)\.log$", printed, flags=re.M)


def test_the_cheapest_layer_is_steered_and_a_trial_is_not_made_twice(tmp_path):
    world = copy_of(finished_demo(), tmp_path / "world", _LATER)
    first = run(world, "results/demo/layer_trials/0.parquet", sizes=EFFECT, forked=True)
    assert first.returncode == 0, first.stderr[-3000:]
    # As after a kill: the trial of the other layer alone is made now.
    plan = run(world, "results/demo/layer.json", "--dry-run", sizes=EFFECT)
    planned = jobs(plan.stdout + plan.stderr)
    assert "try_layer-1" in planned and "try_layer-0" not in planned
    done = run(world, "results/demo/layer.json", sizes=EFFECT, forked=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = world / "results" / "demo"
    table = pd.read_csv(results / "layer_effect.csv")
    validate_table(table, "layer_effect")
    assert table["layer"].tolist() == [0, 1] and set(table["n_prompts"]) == {20}
    reached = table[table["status"] == "reached"]
    layer = json.loads((results / "layer.json").read_text(encoding="utf-8"))
    assert layer["layer"] == reached.set_index("layer")["kl"].idxmin()
    assert layer["chosen_by"] == "effect"
    texts = pd.read_parquet([*(results / "layer_trials").glob("*.parquet")])
    assert texts["example_id"].str.startswith("validation_prompt").all()
    plain = texts[texts["method"] == "no_steering"].sort_values(["example_id"])
    assert (plain["kl_sum"].abs() < 1e-6).all()
    # Without steering, the texts do not depend on the layer.
    by_layer = plain.groupby("layer")["base_nll_sum"].sum()
    assert abs(by_layer[0] - by_layer[1]) < 1e-4 * by_layer[0]
