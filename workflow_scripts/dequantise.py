"""Write a model that comes as a GGUF file as a directory of transformers."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.config.prepared_models import gguf_path
    from steering_core.models.gguf_file import dequantise

    source = snakemake.params.source
    file = next(iter(snakemake.input), None) or gguf_path(source)
    dequantise(Path(file), source, snakemake.output.model, snakemake.params.revision)
