"""Solve a program at every strength for every validation and test row, or for every prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import ActivationCache, read_inputs
    from steering_core.data.examples import read_examples
    from steering_core.methods.programs import solve_program_grid
    from steering_core.methods.solutions import ModelUnits, write_solutions
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.arrays import load_decoder
    from steering_core.storage.files import read_json

    files, target_class = snakemake.input, snakemake.params.target_class
    named, hook = dict(files.items()), read_json(files.layer)["hook_name"]
    resources = read_json(files.resources)
    inputs = read_inputs(named, resources, hook)
    cache = ActivationCache(files.manifest, resources, files.examples)
    probe = LinearProbe.load(files.probe).oriented(target_class)
    decoder = load_decoder(files.decoder)
    if "path" in named:  # of the rows: the prompts follow it further where they need to
        path = SteeringPath.load(files.path, decoder)
    else:
        path = SteeringPath.fit(decoder, probe.weight_vector)
    solutions = solve_program_grid(
        SimpleNamespace(**snakemake.params.settings),
        inputs.examples,
        inputs.residuals,
        probe,
        path,
        target_class,
        ModelUnits.of_examples(
            read_examples(files.examples, ["train", "validation"]),
            lambda ids: cache.matrix(hook, ids),
            probe.decision,
        ),
    )
    path.save(snakemake.output.path)
    write_solutions(solutions[inputs.written(solutions)], snakemake.output.solutions)
