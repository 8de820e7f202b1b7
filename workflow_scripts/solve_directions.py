"""Apply each fixed direction at each strength to all validation and test rows, or all prompts."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.methods.base import read_direction
    from steering_core.methods.fixed_solutions import solve_directions
    from steering_core.methods.solutions import write_solutions

    solutions = solve_directions(
        SimpleNamespace(**snakemake.params.settings),
        read_examples(snakemake.input.inputs, ["validation", "test", *PROMPT_SPLITS]),
        lambda method: read_direction(snakemake.input.directions, method),
    )
    write_solutions(solutions, snakemake.output.solutions)
