"""Solve every variant of the programs for test rows that start outside the target class."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.features import feature_matrix
    from steering_core.activations.reader import ActivationCache
    from steering_core.data.examples import read_examples
    from steering_core.methods.solutions import ModelUnits
    from steering_core.methods.variants import variants_of_test_rows
    from steering_core.optimize.dictionary import Dictionary
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.arrays import load_decoder
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files, target_class = snakemake.input, snakemake.params.target_class
    hook = read_json(files.layer)["hook_name"]
    cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)
    dictionary = Dictionary(load_decoder(files.decoder))
    probe = LinearProbe.load(files.probe).oriented(target_class)
    rows = variants_of_test_rows(
        SimpleNamespace(**snakemake.params.settings),
        read_examples(files.examples, ["train"]),
        read_examples(files.examples, ["test"])["example_id"].tolist(),
        residuals_of=lambda ids: cache.matrix(hook, ids),
        features_of=lambda ids: feature_matrix(files.features, ids),
        probe=probe,
        evaluation_probe=LinearProbe.load(files.evaluation_probe).oriented(target_class),
        dictionary=dictionary,
        path=SteeringPath.fit(dictionary, probe.weight_vector),
        target_class=target_class,
        units=ModelUnits.of_examples(
            read_examples(files.examples, ["train", "validation"]),
            lambda ids: cache.matrix(hook, ids),
            probe.decision,
        ),
    )
    write_parquet(snakemake.output.solutions, rows)
