# %% [markdown]
# # 1. Baselines: steering with a fixed direction
#
# The simplest way to steer a language model is to add one vector to its residual stream, the same for
# every input. This tutorial fits such a vector on the demo, adds it, and reads what it did and what it
# cost. `make demo` makes the files that it reads; they are in `results/demo`.
#
# The demo is a small world with known truth: a grammar writes documents with a positive or a negative
# sentiment, and a language model of four layers has learned them. A lexicon of the grammar says which
# sentiment a text has, so no judge can be mistaken.

# %%
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path("results/demo")
examples = pd.read_parquet(RESULTS / "examples.parquet")
examples[examples["split"] == "train"][["text", "label"]].head(4)

# %% [markdown]
# ## The direction
#
# The stages of the pipeline have read every text once and kept the residual of its last token. The
# difference of the class means on training rows is the direction of CAA.

# %%
from steering_core.activations.reader import ActivationCache
from steering_core.storage.files import read_json

site = read_json(RESULTS / "layer.json")
cache = ActivationCache(
    RESULTS / "activations" / "manifest.json",
    read_json(RESULTS / "resources.json"),
    RESULTS / "examples.parquet",
)
train = examples[examples["split"] == "train"]
residuals = cache.matrix(site["hook_name"], train["example_id"])
label = train["label"].to_numpy(dtype=int)
difference = residuals[label == 1].mean(axis=0) - residuals[label == 0].mean(axis=0)
print(f"steered at {site['hook_name']}")
print(f"a residual is {np.linalg.norm(residuals, axis=1).mean():.1f} long on average")
print(f"the class means are {np.linalg.norm(difference):.1f} apart")

# %% [markdown]
# The pipeline stores the same direction, of unit length.

# %%
from steering_core.methods.base import read_direction

direction, unit = read_direction(RESULTS / "directions.safetensors", "caa_mean_diff")
cosine = direction.vector @ difference / np.linalg.norm(difference)
print(f"cosine of the two: {cosine:.6f}")
assert cosine > 0.999

# %% [markdown]
# ## Steer with it
#
# `load_intervention` takes a method from the results. Without a strength it takes the one that was
# selected on validation prompts. It is applied to a plain model of transformers. The strength is in
# units of the mean residual norm.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core import load_intervention

model = AutoModelForCausalLM.from_pretrained(RESULTS / "language_model").eval()
tokenizer = AutoTokenizer.from_pretrained(RESULTS / "language_model")
steering = load_intervention(RESULTS, method="caa_mean_diff")
prompts = examples.loc[examples["split"] == "prompt", "text"].tolist()[:3]


def completions(texts):
    """Continue texts greedily; BOS stands in front, as in the experiment."""
    found = []
    for text in texts:
        inputs = tokenizer(
            tokenizer.bos_token + text, return_tensors="pt", add_special_tokens=False
        )
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        found.append(
            tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        )
    return found


plain = completions(prompts)
with steering.apply(model, tokenizer):
    steered = completions(prompts)
pd.DataFrame({"prompt": prompts, "plain": plain, "steered": steered})

# %% [markdown]
# ## What it did, and what it cost
#
# `pareto.csv` has a row for each method and strength. The effect is the share of completions in the
# target class, the cost is the KL divergence per token from the unsteered model. Every mean has an
# interval. A larger strength has a larger effect and a larger cost; read the selected row, as the best
# of a sweep is biased upwards.

# %%
pareto = pd.read_csv(RESULTS / "pareto.csv")
columns = ["strength", "classifier_rate_steered", "classifier_ci_low"]
columns += ["classifier_ci_high", "kl_mean", "selected"]
pareto.loc[pareto["method"] == "caa_mean_diff", columns].round(3)

# %%
base = pareto.loc[pareto["method"] == "no_steering", "classifier_rate_steered"].item()
best = pareto.loc[pareto["method"] == "caa_mean_diff", "classifier_rate_steered"].max()
print(f"in the target class without steering: {base:.2f}, at the largest effect: {best:.2f}")
assert best > base

# %% [markdown]
# The next tutorial steers with a feature of a sparse autoencoder instead of a dense direction.
