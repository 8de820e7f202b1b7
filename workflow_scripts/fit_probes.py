"""Fit the probe that steering uses, and an independent probe that evaluates it."""

from steering_core.runtime.job import job

with job(snakemake):
    import logging
    from dataclasses import asdict

    from steering_core.activations.reader import ActivationCache
    from steering_core.data.examples import read_examples
    from steering_core.probes.fit import evaluate_probe, fit_probe
    from steering_core.storage.files import read_json, write_json

    settings = snakemake.params.settings
    site = read_json(snakemake.input.layer)
    files = snakemake.input
    cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)

    def split(name):
        rows = read_examples(files.examples, [name])
        residuals = cache.matrix(site["hook_name"], rows["example_id"])
        return residuals, rows["label"].to_numpy(dtype=int), rows["group"].to_numpy()

    report = {}
    for part, path in (
        ("train", snakemake.output.probe),
        ("evaluation", snakemake.output.evaluation_probe),
    ):
        residuals, labels, groups = split(part)
        probe = fit_probe(
            residuals,
            labels,
            seed=settings["seed"],
            groups=groups,
            regularisations=settings["probe_regularisation"],
            n_folds=settings["probe_folds"],
            centred=site["centred"],
        )
        probe.save(path)
        report[part] = asdict(evaluate_probe(probe, *split("validation")[:2]))
        if report[part]["at_chance"]:  # warn before the texts are made
            logging.getLogger(__name__).warning(
                "the %s probe is no better than chance on validation rows: set another layer or "
                "label, or raise rows_per_class, before texts are generated",
                part,
            )
    write_json(snakemake.output.report, report)
