"""Note, for all validation and test rows, or all prompts, the scales of the adapter."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.data.examples import PROMPT_SPLITS, read_examples
    from steering_core.methods.fixed_solutions import solve_lora
    from steering_core.methods.solutions import write_solutions

    examples = read_examples(snakemake.input.inputs, ["validation", "test", *PROMPT_SPLITS])
    write_solutions(solve_lora(snakemake.params.scales, examples), snakemake.output.solutions)
