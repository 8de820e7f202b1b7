"""Solve a program at every strength for every test row, validation row and prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.activations.reader import ActivationCache
    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.methods.programs import solve_program_grid
    from steering_core.methods.solutions import write_solutions
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.arrays import load_decoder
    from steering_core.storage.files import read_json

    files, target_class = snakemake.input, snakemake.params.target_class
    examples = read_examples(files.examples, ["validation", "test", *PROMPT_SPLITS])
    cache = ActivationCache(files.manifest, read_json(files.resources), files.examples)
    probe = LinearProbe.load(files.probe).oriented(target_class)
    path = SteeringPath.fit(load_decoder(files.decoder), probe.weight_vector)
    solutions = solve_program_grid(
        SimpleNamespace(**snakemake.params.settings),
        examples,
        cache.matrix(read_json(files.layer)["hook_name"], examples["example_id"]),
        probe,
        path,
        target_class,
    )
    path.save(snakemake.output.path)
    write_solutions(solutions, snakemake.output.solutions)
