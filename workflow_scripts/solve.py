"""Solve a program at every strength for every validation and test row, or for every prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import read_inputs
    from steering_core.methods.programs import solve_program_grid
    from steering_core.methods.solutions import write_solutions
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.arrays import load_decoder
    from steering_core.storage.files import read_json

    files, target_class = snakemake.input, snakemake.params.target_class
    named = dict(files.items())
    inputs = read_inputs(named, read_json(files.resources), read_json(files.layer)["hook_name"])
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
    )
    path.save(snakemake.output.path)
    write_solutions(solutions[inputs.written(solutions)], snakemake.output.solutions)
