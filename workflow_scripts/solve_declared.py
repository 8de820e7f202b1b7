"""Solve a declared program for every validation and test row, or for every prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    from dataclasses import replace
    from types import SimpleNamespace

    import numpy as np

    from steering_core.activations.reader import ActivationCache, read_inputs
    from steering_core.data.examples import read_examples
    from steering_core.methods.declared_programs import solve_declared
    from steering_core.methods.directions import FitData
    from steering_core.methods.guard_directions import guards_of, same_site, write_guard_rows
    from steering_core.methods.solution_vectors import ProgramLogit, write_program
    from steering_core.methods.solutions import write_solutions
    from steering_core.models.site import site_at
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.statistics.fisher import Fisher
    from steering_core.storage.arrays import load_arrays, load_decoder
    from steering_core.storage.files import read_json

    files, target_class = snakemake.input, snakemake.params.target_class
    declared = SimpleNamespace(**snakemake.params.declared)
    layer = read_json(files.layer)
    site = site_at(layer)
    resources = read_json(files.resources)
    cache = ActivationCache(files.manifest, resources, files.examples)
    data = FitData.of_examples(
        read_examples(files.examples),
        lambda ids: cache.matrix(site.hook_name, ids),
        target_class=target_class,
        centred=site.centred,
    )
    if files.get("gradient"):
        gradient = load_arrays(files.gradient)[0]["vector"]
        data = replace(data, likelihood_gradient=gradient)
    probes = {}
    named = zip(
        snakemake.params.guarding_experiments, files.guard_probes, files.guard_layers, strict=True
    )
    for other, probe, picked in named:
        same_site(other, read_json(picked), layer)
        probes[other] = LinearProbe.load(probe)
    contrasts = {
        concept: load_arrays(file)[0]["vector"]
        for concept, file in zip(
            snakemake.params.guarding_concepts, files.guard_contrasts, strict=True
        )
    }
    guards = guards_of(declared.guards, data.residuals, probes, contrasts)
    inputs = read_inputs(dict(files.items()), resources, site.hook_name)
    solved = solve_declared(
        snakemake.wildcards.method,
        declared,
        inputs.examples,
        inputs.residuals,
        LinearProbe.load(files.probe).oriented(target_class),
        data,
        load_decoder(files.decoder),
        fisher=Fisher.load(files.fisher) if files.get("fisher") else None,
        guards=guards,
        units=snakemake.params.settings["units"],
    )
    logit = ProgramLogit(
        declared.program,
        solved.weight,
        solved.bias,
        solved.metric,
        solved.cost,
        guards,
        declared.mode,
    )
    written = inputs.written(solved.rows)
    used, index = np.unique(solved.index[written], return_inverse=True)
    write_program(snakemake.output.plan, site, solved.vectors[used], index, logit)
    write_solutions(solved.rows[written], snakemake.output.solutions)
    guarded = solved.guard_rows
    write_guard_rows(
        None if guarded is None else guarded[inputs.written(guarded)], snakemake.output.guards
    )
