"""Check that the parts of the activation cache fit together, and list them in a manifest."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.activations.manifest import expected_rows, origin, write_manifest
    from steering_core.storage.files import read_json

    files, settings = snakemake.input, snakemake.params.settings
    write_manifest(
        files.parts,
        snakemake.output.manifest,
        expected_rows(files.examples, settings["cached_positions"]),
        origin(
            read_json(files.resources),
            files.examples,
            settings["max_tokens"],
            settings["cached_positions"],
        ),
    )
