"""Draw the programs' frontier along the path, with the points of the sweep on it."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.optimize.path import SteeringPath
    from steering_core.storage.files import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.program_frontier import frontier_figure, knot_table, program_frontier

    solutions = pd.read_parquet([*snakemake.input.solutions], filters=[("split", "==", "test")])
    path, experiment = (
        SteeringPath.load_deepest(snakemake.input.paths),
        snakemake.wildcards.experiment,
    )
    table = program_frontier(path, solutions, experiment)
    write_text(snakemake.output.table, table.to_csv(index=False))
    write_text(snakemake.output.knots, knot_table(path, experiment).to_csv(index=False))
    on_curve = table["point"] == "curve"
    save_chart(frontier_figure(table[on_curve], table[~on_curve]), snakemake.output.figure)
