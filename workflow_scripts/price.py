"""Tabulate and draw what sparsity costs at the matched effect."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.config.task import Task
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.charts import save_chart
    from steering_core.tables.matched import read_comparison
    from steering_core.tables.matched_figure import price_figure
    from steering_core.tables.price import price_table

    files, params = snakemake.input, snakemake.params
    layer = read_json(files.layer)
    sae = None
    for path in files.saes:
        sae = pd.read_csv(path).set_index("layer").loc[layer["layer"]].to_dict()
    price = price_table(
        read_comparison(files, Task(**params.task), params.settings),
        params.programs,
        snakemake.wildcards.experiment,
        d_sae=layer["d_sae"],
        sae=sae,
    )
    write_text(snakemake.output.price, price.to_csv(index=False))
    save_chart(price_figure(price), snakemake.output.figure)
