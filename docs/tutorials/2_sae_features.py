# %% [markdown]
# # 2. Steering with features of a sparse autoencoder
#
# A sparse autoencoder (SAE) writes a residual as a sum of few rows of its decoder. Each row is a
# feature. This tutorial finds the features that go with the concept and steers with one of them.
# `make demo` makes the files.

# %%
from pathlib import Path

import numpy as np
import pandas as pd

from steering_core.storage.arrays import load_arrays, load_decoder
from steering_core.storage.files import read_json

RESULTS = Path("results/demo")
decoder = load_decoder(RESULTS / "decoder.safetensors")
site = read_json(RESULTS / "layer.json")
print(f"{decoder.shape[0]} features of width {decoder.shape[1]} at {site['hook_name']}")
assert np.allclose(np.linalg.norm(decoder, axis=1), 1.0)  # rows are scaled to unit norm

# %% [markdown]
# ## Features that know the label
#
# The pipeline correlates every feature with the label, over training rows.

# %%
from steering_core.statistics.correlation import StreamingCorrelation

arrays, _ = load_arrays(RESULTS / "correlation.safetensors")
correlation = StreamingCorrelation.from_arrays(arrays).result().correlation
order = np.argsort(-np.nan_to_num(correlation))[:5]
pd.DataFrame({"feature": order, "correlation": correlation[order].round(3)})

# %% [markdown]
# ## Where does such a feature fire?
#
# These are the training rows with the largest activation of the first one.

# %%
from steering_core.activations.features import feature_matrix

examples = pd.read_parquet(RESULTS / "examples.parquet")
train = examples[examples["split"] == "train"]
activation = feature_matrix(RESULTS / "features.parquet", train["example_id"].tolist())
first = int(order[0])
strength = activation[:, [first]].toarray().ravel()
train.assign(activation=strength).nlargest(5, "activation")[["activation", "label", "text"]]

# %% [markdown]
# The label of the rows with the feature and of those without it:

# %%
on = strength > 0
label = train["label"].to_numpy(dtype=int)
print(f"class 1 among the {on.sum()} rows with the feature: {label[on].mean():.2f}")
print(f"class 1 among the {(~on).sum()} rows without it: {label[~on].mean():.2f}")
assert label[on].mean() > label[~on].mean()

# %% [markdown]
# ## Steer with it
#
# Steering with one feature adds its decoder row. The probe says how far a row of length 1 moves the
# residual towards the target class; an evaluation probe, fitted on rows of its own, says the same
# without having been asked.

# %%
from steering_core.probes.linear_probe import LinearProbe

probe = LinearProbe.load(RESULTS / "probe.safetensors").oriented(1)
judge = LinearProbe.load(RESULTS / "evaluation_probe.safetensors").oriented(1)
table = pd.DataFrame(
    {
        "feature": order,
        "probe": (decoder[order] @ probe.weight_vector).round(3),
        "evaluation probe": (decoder[order] @ judge.weight_vector).round(3),
    }
)
table

# %% [markdown]
# The feature that correlates best with the label is not always the one that moves the probe most.
# The best single feature for the probe is the start of the next tutorial: with the least L1 norm, it is
# the optimum.

# %%
gain = decoder @ probe.weight_vector
print(f"best by correlation: {first}, best for the probe: {int(gain.argmax())}")
print(f"its gain is {gain.max():.3f}, that of the first is {gain[first]:.3f}")
assert gain.max() >= gain[first]
