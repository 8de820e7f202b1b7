"""Fit the directions of the methods that add one fixed vector."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import ActivationCache
    from steering_core.data.examples import read_examples
    from steering_core.methods.directions import FitData, fit_directions, fixed_methods
    from steering_core.statistics.correlation import StreamingCorrelation
    from steering_core.storage.arrays import load_arrays, load_decoder
    from steering_core.storage.files import read_json

    resources = read_json(snakemake.input.resources)
    settings = SimpleNamespace(**snakemake.params.settings)
    site = read_json(snakemake.input.layer)
    cache = ActivationCache(snakemake.input.manifest, resources, snakemake.input.examples)
    examples = read_examples(snakemake.input.examples)

    correlation, _ = load_arrays(snakemake.input.correlation)
    data = FitData.of_examples(
        examples,
        lambda ids: cache.matrix(site["hook_name"], ids),
        target_class=snakemake.params.target_class,
        centred=site["centred"],
        feature_correlation=StreamingCorrelation.from_arrays(correlation).result().correlation,
        seed=settings.seed,
    )
    decoder = load_decoder(snakemake.input.decoder)
    fit_directions(fixed_methods(settings), data, decoder, snakemake.output.directions)
