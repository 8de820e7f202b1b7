"""Solve a family of methods at every strength for every test row, validation row and prompt."""

from steering_core.job import job

with job(snakemake):
    from steering_core.activations.reader import ActivationCache
    from steering_core.config.view import SettingsView
    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.methods.directions import read_direction
    from steering_core.methods.solutions import write_solutions
    from steering_core.methods.solve_grid import solve_directions, solve_program_grid
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.json import read_json

    files, target_class = snakemake.input, snakemake.params.target_class
    given = SettingsView(snakemake.params.settings)
    examples = read_examples(files.examples, ["validation", "test", *PROMPT_SPLITS])
    if files.get("directions"):
        solutions = solve_directions(
            given, examples, lambda method: read_direction(files.directions, method)
        )
    else:
        cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)
        solutions = solve_program_grid(
            given,
            examples,
            cache.matrix(read_json(files.layer)["hook_name"], examples["example_id"]),
            LinearProbe.load(files.probe).oriented(target_class),
            SteeringPath.load(files.path),
            target_class,
        )
    write_solutions(solutions, snakemake.output.solutions)
