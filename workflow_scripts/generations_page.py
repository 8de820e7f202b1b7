"""Make the page of texts side by side: prompt, unsteered, and every method."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.data.examples import read_examples
    from steering_core.methods.solutions import TEXT_KEY
    from steering_core.metrics.judges import score_label, target_scores
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.caveats import judge_warnings, probe_warnings
    from steering_core.tables.pages import generations_page

    prompts = read_examples(snakemake.input.prompts, ["prompt"])
    columns = ["method", "strength_index", "strength_name", "strength", "example_id"]
    texts = pd.concat(
        pd.read_parquet(path, columns=[*columns, "draw", "status", "prompt", "text"])
        for path in snakemake.input.generations
    ).merge(pd.read_parquet(snakemake.input.judged), on=[*TEXT_KEY])
    texts = texts[texts["draw"] == 0]  # one text of each prompt is enough to read
    texts = texts[texts["example_id"].isin(prompts["example_id"])].rename(
        columns={"example_id": "prompt_id"}
    )
    # A table of numbers read from text: the same numbers, since they are written in full.
    point = ["method", "strength_name", "strength"]
    table = pd.read_csv(snakemake.input.pareto, usecols=[*point, "selected"])
    texts = texts.merge(table, on=point, how="left", validate="many_to_one")
    texts["target_score"] = target_scores(texts["score"], snakemake.params.target_class)
    classifier = snakemake.params.classifier
    page = generations_page(
        texts,
        f"{snakemake.wildcards.experiment}: texts side by side",
        score_label(classifier),
        [*probe_warnings(read_json(snakemake.input.probes)), *judge_warnings(classifier, texts)],
    )
    write_text(snakemake.output.page, page)
