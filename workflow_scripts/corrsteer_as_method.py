"""Vectors and solution rows of a CorrSteer plan in an experiment that delivers pareto.csv."""

from steering_core.runtime.job import job

with job(snakemake):
    import pandas as pd

    from steering_core.corrsteer.plan import Plan, choose
    from steering_core.corrsteer.sparse_methods import check_same_model
    from steering_core.data.examples import read_examples
    from steering_core.errors import DataError
    from steering_core.methods.fixed_solutions import solve_plan
    from steering_core.methods.solution_vectors import write_plan
    from steering_core.methods.solutions import write_solutions
    from steering_core.storage.files import read_json

    files, params, method = snakemake.input, snakemake.params, snakemake.wildcards.method
    check_same_model(read_json(files.resources), read_json(files.run_resources))
    plan, validation = Plan.load(files.plan), files.get("validation")
    choice = choose(params.strategy, plan, None if validation is None else pd.read_csv(validation))
    if not choice.layers:
        raise DataError(
            f"plans.{method}: the arm has no layer to steer ({choice.reason}): leave the plan out."
        )
    intervention = plan.intervention(choice.layers)
    norms = intervention.norms(1)
    rows = solve_plan(
        method,
        params.scales,
        float(norms[0]),
        plan.n_features(choice.layers),
        read_examples(files.inputs, ["validation", "test", "prompt", "validation_prompt"]),
    )
    vectors = {plan.sites[layer]: plan.vectors[layer] for layer in choice.layers}
    write_plan(snakemake.output.plan, vectors)
    write_solutions(rows, snakemake.output.solutions)
