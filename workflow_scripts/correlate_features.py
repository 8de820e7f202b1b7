"""Correlate every feature with the label over the training split, in one pass."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.features import read_features
    from steering_core.data.examples import read_examples
    from steering_core.statistics.correlation import correlate
    from steering_core.storage.arrays import save_arrays

    train = read_examples(snakemake.input.examples, ["train"])
    labels = dict(zip(train["example_id"], train["label"].astype(float), strict=True))
    correlation = correlate(read_features(snakemake.input.features), labels)
    save_arrays(snakemake.output.correlation, correlation.to_arrays())
