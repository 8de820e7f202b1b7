# %% [markdown]
# # 4. Everything side by side, with CorrSteer
#
# Which method has the most effect at the least cost, and how many features does it need? `make demo`
# makes the files.

# %%
from pathlib import Path

import pandas as pd

RESULTS, CORRSTEER = Path("results/demo"), Path("results/demo_praise")
pareto = pd.read_csv(RESULTS / "pareto.csv")
print(f"{pareto['method'].nunique()} methods, {len(pareto)} strengths")

# %% [markdown]
# ## At the selected strengths
#
# One strength of each method is selected on validation prompts, within a budget of KL.

# %%
chosen = pareto[pareto["selected"].eq(True)]
columns = ["method", "strength_name", "strength", "classifier_rate_steered", "kl_mean"]
columns += ["l0_mean", "frontier_probability"]
chosen[columns].round(3)

# %% [markdown]
# ## At equal effect
#
# Methods that were selected at different effects cannot be compared by their cost. `summary.csv` has
# the cost of each at one and the same effect, as a multiple of the best dense direction's.

# %%
summary = pd.read_csv(RESULTS / "summary.csv")
summary.round(3)

# %% [markdown]
# `verdict.json` says the same in words.

# %%
from steering_core.storage.files import read_json

print(read_json(RESULTS / "verdict.json")["headline"])

# %% [markdown]
# ## At equal length
#
# Another fair comparison: each direction is scaled, row by row, to the length of the program's vector.
# `difference` is the share of rows that the program moves across the evaluation probe, minus that of the
# direction.

# %%
matched = pd.read_csv(RESULTS / "norm_matched.csv")
columns = ["method", "strength_name", "strength", "direction", "n", "difference"]
matched[[*columns, "difference_ci_low", "difference_ci_high"]].head(8).round(3)

# %% [markdown]
# ## CorrSteer
#
# CorrSteer needs no labels of texts. It lets the model answer questions, correlates every feature with
# the success of the answer, and adds the best ones. The demo's task has a known cause of success: an
# answer is right if it praises.

# %%
corrsteer = pd.read_csv(CORRSTEER / "corrsteer.csv")
numbers = [name for name in ("method", "arm", "accuracy", "n", "status") if name in corrsteer]
corrsteer[numbers].round(3)

# %% [markdown]
# Is the feature that it selects the one that knows the sentiment of the prompt? The truth is known here.

# %%
planted = read_json(CORRSTEER / "planted_feature.json")
print(f"its rank among {planted['n_features']} features: {planted['rank']}")
print(f"area under the curve for success: {planted['auc_success']:.3f}")
assert planted["rank"] <= planted["n_features"]
