"""Solve every method at every strength for every test row, validation row and prompt."""

from steering_core.job import job

with job(snakemake):
    from steering_core.models.hub import work_offline

    work_offline()
    import pandas as pd

    from steering_core.activations.reader import ActivationCache
    from steering_core.config.schema import SAESource
    from steering_core.config.view import SettingsView
    from steering_core.data.examples import read_examples
    from steering_core.methods.directions import read_direction
    from steering_core.methods.grid import grid, is_program
    from steering_core.methods.solutions import solve_fixed, solve_programs, write_solutions
    from steering_core.models.sparse_autoencoder import load_sae
    from steering_core.optimize.path import SteeringPath
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.progress import progress
    from steering_core.storage.json import read_json

    given = SettingsView(snakemake.params.settings)
    site = read_json(snakemake.input.layer)
    examples = read_examples(snakemake.input.examples, ["validation", "test", "prompt"])
    ids = examples["example_id"].tolist()
    residuals = ActivationCache(snakemake.input.manifest).matrix(site["hook_name"], ids)
    probe = LinearProbe.load(snakemake.input.probe).oriented(snakemake.params.target_class)
    decoder = load_sae(SAESource(**snakemake.params.model["sae"]), site["layer"]).decoder
    path = SteeringPath.fit(decoder, probe.weight_vector)
    frames = []
    for method in progress(given.methods, "solving"):
        points = grid(method, given)
        if is_program(method):
            frames.append(solve_programs(points, ids, residuals, probe, path))
        else:
            frames.append(
                solve_fixed(points, ids, *read_direction(snakemake.input.directions, method))
            )
    path.save(snakemake.output.path)
    solutions = pd.concat(frames, ignore_index=True)
    split = examples.set_index("example_id")["split"]
    write_solutions(
        solutions.assign(split=solutions["example_id"].map(split)), snakemake.output.solutions
    )
