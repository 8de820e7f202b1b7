"""The frontier of the programs along the path, with the sweep's points on it."""

from steering_core.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.methods.frontier import frontier_table, grid_points
    from steering_core.optimize.path import SteeringPath
    from steering_core.storage.atomic import write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.program_figure import frontier_figure

    solutions = pd.read_parquet(snakemake.input.solutions, filters=[("split", "==", "test")])
    margins = snakemake.params.settings["qp_tau"]
    some = solutions[(solutions["method"] == "qp_optimal") & (solutions["strength_index"] == 0)]
    logits = (some["tau"] - some["shortfall"]).to_numpy()
    table = frontier_table(SteeringPath.load(snakemake.input.path), logits, margins)
    grid = grid_points(solutions)
    grid = grid[grid["margin"].isin(margins)]
    write_text(snakemake.output.table, table.to_csv(index=False))
    save_chart(frontier_figure(table, grid), snakemake.output.figure)
