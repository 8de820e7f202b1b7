"""Compare the feature that CorrSteer-S chose in the demo with the planted sentiment."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.config.model import Model
    from steering_core.corrsteer.answers import open_session
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.planted_feature import chosen_feature, planted_feature
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import load_encoder
    from steering_core.storage.files import read_json, write_json

    files, params = snakemake.input, snakemake.params
    resources = read_json(files.resources)
    session = open_session(params.model, params.task, SimpleNamespace(**params.settings), resources)
    answers = pd.read_parquet(files.answers, filters=[("method", "==", "corrsteer_s")])
    layer, feature = chosen_feature(answers, pd.read_csv(files.features))
    # test prompts: they did not take part in choosing the feature
    rows = read_examples(files.examples, "test").merge(
        pd.read_parquet(files.prompts), on="prompt", how="left", validate="one_to_one"
    )
    found = planted_feature(
        session,
        load_encoder(pinned_sae(Model(**params.model), resources), layer, session.lm.device),
        rows,
        layer,
        feature,
    )
    write_json(snakemake.output.planted, found)
