"""Compare the feature that CorrSteer-S chose in the demo with the planted sentiment."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.model import Model
    from steering_core.demo.planted_feature import chosen_feature, planted_feature
    from steering_core.models.pins import pinned_sae
    from steering_core.models.resources import fetched_model
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.storage.atomic import write_json
    from steering_core.storage.json import read_json

    files, model = snakemake.input, snakemake.params.model
    resources = read_json(files.resources)
    layer, feature = chosen_feature(pd.read_parquet(files.answers), pd.read_csv(files.features))
    found = planted_feature(
        fetched_model(model, resources, snakemake.params.settings["device"]),
        load_sae(pinned_sae(Model(**model), resources), layer),
        pd.read_parquet(files.prompts),
        feature,
    )
    write_json(snakemake.output.planted, found)
