"""Note, for all validation and test rows, or all prompts, that a text stands before the prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.methods.fixed_solutions import solve_prompting
    from steering_core.methods.solutions import write_solutions

    examples = read_examples(snakemake.input.inputs, ["validation", "test", *PROMPT_SPLITS])
    write_solutions(solve_prompting(examples), snakemake.output.solutions)
