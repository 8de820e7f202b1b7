# %% [markdown]
# # 5. Your own model, your own CSV, your own SAE
#
# An experiment is a few lines of configuration and a file of texts, no code. Here the model and the SAE
# are those of the demo (`make demo`), taken as if they were yours, and the data are a CSV file.

# %%
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd

OWN = Path("own")
shutil.rmtree(OWN, ignore_errors=True)
OWN.mkdir()
for folder in ("demo/language_model", "models/demo/sparse_autoencoders"):
    shutil.copytree(Path("results", folder), OWN / Path(folder).name)
rows = pd.read_parquet("results/demo/corpus.parquet")[["text", "label"]]
rows = rows.rename(columns={"text": "review"}).assign(
    label=rows["label"].map({0: "bad", 1: "good"})
)
rows.to_csv(OWN / "reviews.csv", index=False)
rows.head(3)

# %% [markdown]
# ## Start from the template
#
# On the command line: `python -m steering_core.data.new_experiment reviews --data own/reviews.csv --model
# own/language_model --sae "own/sparse_autoencoders/layer_{layer}" --out own`. The columns of the CSV file and
# the names of the classes are recognised.

# %%
from steering_core.data.new_experiment import write_experiment

configuration, concept = write_experiment(
    "reviews",
    OWN,
    model="own/language_model",
    sae="own/sparse_autoencoders/layer_{layer}",
    data="own/reviews.csv",
)
print(configuration.read_text(encoding="utf-8"))

# %% [markdown]
# ## What is wrong?
#
# `python -m steering_core.early_checks reviews --configfile own/reviews.yaml` lists it, all at once and
# before any job. Nothing is wrong yet: the template has read the columns and the names of the classes. Look
# at `positive_label`, though, which says which of the two names is class 1.

# %%
from steering_core.early_checks import main as check

arguments = ["reviews", "--configfile", str(configuration), "--offline"]
assert check(arguments) == 0

# %% [markdown]
# A mistake is found before any job:

# %%
text = configuration.read_text(encoding="utf-8")
configuration.write_text(text.replace("new_tokens: 32", "new_tokens: 100000"), encoding="utf-8")
assert check(arguments) == 1  # the status with which the command ends

# %% [markdown]
# Shorten the run to one layer and a few methods:

# %%
text = text.replace("layer: auto", "layer: 2")
text = text.replace(
    "# methods: [no_steering, random_direction, caa_mean_diff, qp_optimal]",
    "methods: [no_steering, caa_mean_diff, qp_optimal]",
)
configuration.write_text(text, encoding="utf-8")
assert check(arguments) == 0

# %% [markdown]
# ## Run it
#
# On the command line: `snakemake --cores 2 results/reviews/index.html --configfile own/reviews.yaml`. To be
# quick, this page stops at the probes; the page of the results takes some minutes more.

# %%
snakemake = os.environ.get("SNAKEMAKE", "snakemake").split()
target = "results/reviews/probes.json"
command = [*snakemake, "--cores", "2", target, "--configfile", str(configuration)]
done = subprocess.run(command, capture_output=True, text=True, check=False)
print("\n".join(line for line in done.stderr.splitlines() if "steps" in line or "Error" in line))
assert done.returncode == 0, done.stderr[-3000:]

# %% [markdown]
# ## Does a probe find the concept?
#
# This is the first thing to look at: if the probe is no better than chance on rows that it was not
# fitted on, no program can steer with it.

# %%
from steering_core.storage.files import read_json

report = read_json(target)
pd.DataFrame(
    [
        {"probe": name, **{k: found[k] for k in ("accuracy", "at_chance")}}
        for name, found in report.items()
    ]
)

# %%
assert not report["train"]["at_chance"]
