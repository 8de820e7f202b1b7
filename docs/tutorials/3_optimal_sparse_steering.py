# %% [markdown]
# # 3. Optimal sparse steering: the path, certificates and the frontier
#
# Which combination of features moves a probe past a margin, with the least L1 norm? This is a convex
# program. One path has the solution of every input, margin and penalty ([solver](../solver.md)).
# `make demo` makes the files.

# %%
from pathlib import Path

import numpy as np
import pandas as pd

from steering_core.activations.reader import ActivationCache
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_decoder
from steering_core.storage.files import read_json

RESULTS = Path("results/demo")
decoder = load_decoder(RESULTS / "decoder.safetensors")
probe = LinearProbe.load(RESULTS / "probe.safetensors").oriented(1)
site = read_json(RESULTS / "layer.json")
examples = pd.read_parquet(RESULTS / "examples.parquet")
cache = ActivationCache(
    RESULTS / "activations" / "manifest.json",
    read_json(RESULTS / "resources.json"),
    RESULTS / "examples.parquet",
)


def residuals_of(ids):
    """Return the residuals of named rows."""
    return cache.matrix(site["hook_name"], ids)


test = examples[examples["split"] == "test"]
logits = probe.decision(residuals_of(test["example_id"]).astype(np.float64))
print(f"{(logits <= 0).sum()} of {len(logits)} test rows start outside the target class")

# %% [markdown]
# ## Units of the model
#
# A margin is configured in typical logits, λ and ε in typical residual norms, so that the same numbers
# fit every model.

# %%
from steering_core.methods.solutions import ModelUnits

units = ModelUnits.of_examples(examples, residuals_of, probe.decision)
print(f"typical logit {units.logit:.2f}, typical residual norm {units.residual_norm:.1f}")
shortfall = 1.0 * units.one("tau") - logits  # what each row lacks of the margin 1

# %% [markdown]
# ## The path
#
# The quadratic program adds ½λ‖v‖² to the L1 norm, v being the vector that is added. All inputs and all
# λ are read off the same path.

# %%
path = SteeringPath.fit(decoder, probe.weight_vector)
rows = []
for penalty in (0.1, 1.0, 10.0, 100.0):
    solved = path.qp(shortfall, qp_lambda=penalty * units.one("lam"))
    rows.append(
        {
            "λ (model)": penalty,
            "features": solved.l0[shortfall > 0].mean(),
            "L1 / norm": solved.l1[shortfall > 0].mean() / units.residual_norm,
            "‖v‖ / norm": solved.residual_norm[shortfall > 0].mean() / units.residual_norm,
        }
    )
table = pd.DataFrame(rows)
assert table["L1 / norm"].is_monotonic_increasing
assert table["‖v‖ / norm"].is_monotonic_decreasing
table.round(3)

# %% [markdown]
# A larger λ buys a shorter vector with more features and more L1 norm. Without λ one feature is enough.
#
# ## Certificates
#
# Every solution has a bound from duality, computed over the whole dictionary. The gap says how far it is
# from the optimum at most.

# %%
solved = path.qp(shortfall, qp_lambda=10.0 * units.one("lam"))
print(pd.Series(solved.status).value_counts().to_string())
optimal = solved.status == "optimal"
print(f"largest relative gap: {np.abs(solved.relative_gap[optimal]).max():.1e}")
print(f"largest dual violation: {solved.dual_violation[optimal].max():.1e}")
assert np.abs(solved.relative_gap[optimal]).max() < 1e-8

# %% [markdown]
# The vector reaches the margin, and no more:

# %%
reached = logits + solved.vector @ probe.weight_vector
print(
    f"logit reached by the optimal rows: {reached[optimal].min():.6f} to {reached[optimal].max():.6f}"
)
assert np.allclose(reached[optimal], units.logit)

# %% [markdown]
# ## A budget instead of a penalty
#
# The second program bounds ‖v‖ by ε. If the bound is too small, no combination of features reaches the
# margin, and the path says so exactly.

# %%
rows = []
for budget in (0.1, 0.25, 0.5, 1.0):
    found = path.socp(shortfall, epsilon=budget * units.one("epsilon"))
    rows.append(
        {
            "ε (model)": budget,
            "infeasible": (found.status == "infeasible").mean(),
            "features": found.l0[found.solved].mean(),
        }
    )
table = pd.DataFrame(rows)
assert table["infeasible"].is_monotonic_decreasing
table.round(3)

# %% [markdown]
# ## The frontier without a sweep
#
# The knots of the path hold the whole trade-off, per unit of shortfall: `l1` rises and `residual_norm`
# falls along it.

# %%
from steering_core.optimize.frontier import unit_frontier

frontier = unit_frontier(path)
assert (np.diff(frontier["l1"]) >= -1e-9).all()
frontier.head(8).round(4)

# %% [markdown]
# ## What it does to texts
#
# The programs were told to move the probe, so its score is no evidence. Texts are judged by others.

# %%
pareto = pd.read_csv(RESULTS / "pareto.csv")
columns = ["strength_name", "strength", "tau", "l0_mean", "eval_flip_rate"]
columns += ["classifier_rate_steered", "kl_mean", "selected"]
pareto.loc[pareto["method"] == "qp_optimal", columns].round(3)
