"""Make the page of an experiment: what was found, in one file."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    import pandas as pd

    from steering_core.data.examples import read_examples
    from steering_core.metrics.judges import score_label, target_scores
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.experiment_page import experiment_page, verdict_of, with_selected

    files, params = snakemake.input, snakemake.params
    pareto, matched = (pd.read_csv(path) for path in (files.pareto, files.norm_matched))
    prompts = read_examples(files.prompts, ["prompt"])
    columns = ["method", "strength_index", "strength_name", "strength", "example_id"]
    texts = pd.concat(
        pd.read_parquet(path, columns=[*columns, "status", "prompt", "text"])
        for path in files.generations
    ).merge(pd.read_parquet(files.judged), on=["method", "strength_index", "example_id"])
    texts = texts[texts["example_id"].isin(prompts["example_id"])].rename(
        columns={"example_id": "prompt_id"}
    )
    texts["target_score"] = target_scores(texts["score"], params.target_class)
    page = experiment_page(
        verdict=read_json(files.verdict[0]) if files.verdict else verdict_of(pareto),
        summary=pd.read_csv(files.summary[0]) if files.summary else None,
        pareto=pareto,
        norm_matched=matched,
        texts=with_selected(texts, pareto),
        judge=score_label(params.classifier),
        target=params.target,
        provenance=read_json(files.provenance),
        results=params.results,
        pictures={
            Path(path).name: Path(path).read_text(encoding="utf-8") for path in files.pictures
        },
        exports=params.exports,
    )
    write_text(snakemake.output.page, page)
