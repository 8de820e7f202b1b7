"""Check the parts of a cache against each other and list them."""

from steering_core.job import job

with job(snakemake):
    from steering_core.activations.manifest import origin, write_manifest
    from steering_core.data.examples import count_examples
    from steering_core.storage.json import read_json

    write_manifest(
        snakemake.input.parts,
        snakemake.output.manifest,
        expected_rows=count_examples(snakemake.input.examples),
        expected=origin(
            read_json(snakemake.input.resources),
            snakemake.input.examples,
            snakemake.params.settings["max_tokens"],
        ),
    )
