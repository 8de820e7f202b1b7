"""Compute the logits of both probes before and after steering, for every test row."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.activations.reader import ActivationCache
    from steering_core.config.methods import WITHOUT_VECTOR
    from steering_core.data.examples import read_examples
    from steering_core.methods.solution_vectors import PlanRows, read_plan, read_solution_vectors
    from steering_core.metrics.probe_effects import probe_effects, without_probe_effects
    from steering_core.models.site import site_at
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.files import read_json
    from steering_core.storage.parquet import write_parquet

    files = snakemake.input
    site = read_json(files.layer)
    probe, evaluation_probe = (
        LinearProbe.load(path).oriented(snakemake.params.target_class)
        for path in (files.probe, files.evaluation_probe)
    )
    frames = []
    rows = read_examples(files.examples, ["validation", "test"])
    cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)
    residuals = cache.matrix(site["hook_name"], rows["example_id"])
    for method in snakemake.params.settings["methods"]:
        if method in WITHOUT_VECTOR:  # it adds nothing to the residuals of test rows
            solved = pd.read_parquet([*files.solutions], filters=[("method", "==", method)])
            effects = without_probe_effects(PlanRows(solved, {}), rows["example_id"].tolist())
            frames.append(effects.assign(method=method))
            continue
        interventions = read_solution_vectors(
            method, files.solutions, files.directions, files.paths
        )
        effects = probe_effects(
            interventions, rows["example_id"].tolist(), residuals, probe, evaluation_probe
        )
        frames.append(effects.assign(method=method))
    here = site_at(site)
    for method, path in zip(snakemake.params.plans, files.plans, strict=True):
        plan = read_plan(files.solutions, path, method)
        ids = rows["example_id"].tolist()
        if plan.moves_alone(here):
            effects = probe_effects(plan.at_site(here), ids, residuals, probe, evaluation_probe)
        else:
            effects = without_probe_effects(plan, ids)
        frames.append(effects.assign(method=method))
    effects = pd.concat(frames, ignore_index=True)
    split = rows.set_index("example_id")["split"]
    write_parquet(snakemake.output.effects, effects.assign(split=effects["example_id"].map(split)))
