"""Answer the test rows under one arm, or unsteered."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    import pandas as pd

    from steering_core.corrsteer.answers import write_answers
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.session import open_session
    from steering_core.corrsteer.strategy import answer_choice, choose
    from steering_core.storage.files import read_json

    rows = read_examples(snakemake.input.examples, "test")
    plan, choice = None, None
    if snakemake.params.arm is not None:
        plan = Plan.load(snakemake.input.plan)
        validation = snakemake.input.get("validation")
        choice = choose(
            snakemake.params.arm["strategy"],
            plan,
            None if validation is None else pd.read_csv(validation),
        )
    session = open_session(
        snakemake.params.model,
        snakemake.params.task,
        SimpleNamespace(**snakemake.params.settings),
        read_json(snakemake.input.resources),
    )
    write_answers(snakemake.output.answers, answer_choice(session, rows, plan, choice))
