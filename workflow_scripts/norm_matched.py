"""Compare programs with fixed directions at equal norm on every test row."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import ActivationCache
    from steering_core.config.methods import solves_once
    from steering_core.data.examples import read_examples
    from steering_core.methods.base import read_fixed_vectors
    from steering_core.methods.solution_vectors import read_solution_vectors
    from steering_core.metrics.probe_effects import all_norm_matched_effects
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.caveats import probe_warnings
    from steering_core.tables.norm_matched import norm_matched_table

    files = snakemake.input
    settings = SimpleNamespace(**snakemake.params.settings)
    ids = read_examples(files.examples, ["test"])["example_id"].tolist()
    cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)
    effects = all_norm_matched_effects(
        (
            read_solution_vectors(method, files.solutions, files.directions, files.paths)
            for method in filter(solves_once, settings.methods)
        ),
        read_fixed_vectors(files.directions),
        ids,
        cache.matrix(read_json(files.layer)["hook_name"], ids),
        LinearProbe.load(files.evaluation_probe).oriented(snakemake.params.target_class),
    )
    table = norm_matched_table(
        effects,
        snakemake.wildcards.experiment,
        seed=settings.seed,
        n_resamples=settings.bootstrap_resamples,
        warnings=probe_warnings(read_json(files.probes)),
    )
    write_text(snakemake.output.table, table.to_csv(index=False))
