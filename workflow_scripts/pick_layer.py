"""Record the layer to steer and how it was chosen."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.storage.files import read_json, write_json

    layer = snakemake.params.settings["layer"]
    chosen_by = "config"
    if layer == "auto":
        sweep = pd.read_csv(snakemake.input.sweep[0])
        layer = int(sweep.loc[sweep["picked"], "layer"].iloc[0])
        chosen_by = "sweep"
    elif layer == "effect":
        tried = pd.read_csv(snakemake.input.effect[0])
        layer = int(tried.loc[tried["picked"], "layer"].iloc[0])
        chosen_by = "effect"
    saes = read_json(snakemake.input.resources)["saes"]
    site = next(sae for sae in saes if sae["layer"] == layer)
    write_json(snakemake.output.layer, {**site, "chosen_by": chosen_by})
