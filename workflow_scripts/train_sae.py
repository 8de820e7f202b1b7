"""Train the SAE of one layer on cached activations, save it, and measure it on held-out texts."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.config.model import SAETraining
    from steering_core.models.resources import fetched_model
    from steering_core.storage.files import read_json
    from steering_core.training.texts import with_sites
    from steering_core.training.train_sae import train_layer

    layer, device = int(snakemake.wildcards.layer), snakemake.params.device
    resources = with_sites(read_json(snakemake.input.resources), [layer])
    train_layer(
        SAETraining(layers=[layer], **snakemake.params.training),
        layer,
        resources,
        snakemake.input.manifest,
        snakemake.input.texts,
        snakemake.output.sae,
        snakemake.output.measured,
        name=snakemake.wildcards.model,
        load=lambda: fetched_model(snakemake.params.model, resources, device),
        device=device,
    )
