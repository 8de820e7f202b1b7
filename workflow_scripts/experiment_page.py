"""Make the page of an experiment: what was found, in one file."""

from steering_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    import pandas as pd

    from steering_core.data.examples import read_examples
    from steering_core.metrics.judges import score_label, target_scores
    from steering_core.storage.files import read_json, write_text
    from steering_core.tables.experiment_page import experiment_page, with_selected

    files, params = snakemake.input, snakemake.params
    pareto, summary, matched = (
        pd.read_csv(path) for path in (files.pareto, files.summary, files.norm_matched)
    )
    prompts = read_examples(files.examples, ["prompt"])
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
        verdict=read_json(files.verdict),
        summary=summary,
        pareto=pareto,
        norm_matched=matched,
        texts=with_selected(texts, pareto),
        judge=score_label(params.classifier),
        target=params.target,
        provenance=read_json(files.provenance),
        results=params.results,
        pictures={
            caption: Path(path).read_text(encoding="utf-8")
            for caption, path in zip(params.captions, files.pictures, strict=True)
        },
    )
    write_text(snakemake.output.page, page)
