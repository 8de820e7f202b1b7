"""Export the intervention of one method, for transformers and for other programs."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from steering_core.exports.export import export_row

    point = snakemake.wildcards.point
    export_row(
        Path(snakemake.input.pareto).parent,
        snakemake.wildcards.method,
        snakemake.output.export,
        strength_index=int(point.removeprefix("-")) if point else None,
    )
