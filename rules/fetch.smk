# The only stage that uses the network: everything is pinned, downloaded and checked here.
localrules:
    fetch,
    fetch_sweep,


def local_sources(wildcards):
    """Model, SAEs, dataset and judge that are files here, perhaps made by other rules."""
    found = experiment(wildcards)
    sources = [found.model.id, found.model.sae.path, found.task.dataset]
    if found.task.classifier is not None:
        sources.append(found.task.classifier.lexicon)
    sources = [source.split("/layer_{layer}")[0] for source in sources if source]
    return [source for source in sources if source.startswith("results/") or Path(source).exists()]


rule fetch:
    input:
        local_sources,
    output:
        resources="results/{experiment}/resources.json",
        dataset="results/{experiment}/dataset.parquet",
    log:
        "results/{experiment}/logs/fetch.log",
    retries: 2
    params:
        model=model,
        task=task,
        settings=settings("layer", "layers", "max_tokens", "new_tokens"),
        code=code("fetch.py"),
    script:
        "../workflow_scripts/fetch.py"


rule fetch_sweep:
    input:
        resources=rules.fetch.output.resources,
    output:
        resources="results/{experiment}/sweep_resources.json",
    log:
        "results/{experiment}/logs/fetch_sweep.log",
    retries: 2
    params:
        model=model,
        code=code("fetch_sweep.py"),
    script:
        "../workflow_scripts/fetch_sweep.py"
