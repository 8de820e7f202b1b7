"""Fine-tune on the training rows and answer the test rows."""

from steering_core.runtime.job import job

with job(snakemake):
    from dataclasses import replace
    from types import SimpleNamespace

    from steering_core.corrsteer.answers import open_session, write_answers
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.fine_tune import fine_tune
    from steering_core.storage.files import read_json, write_json

    session = open_session(
        snakemake.params.model,
        snakemake.params.task,
        SimpleNamespace(**snakemake.params.settings),
        read_json(snakemake.input.resources),
    )
    settings = SimpleNamespace(**snakemake.params.fine_tuning)
    trained = fine_tune(
        session.lm,
        read_examples(snakemake.input.examples, "train"),
        settings,
        seed=int(snakemake.wildcards.seed),
        prepend_bos=session.how.prepend_bos,
        chat_template=session.how.chat_template,
        drop_long=snakemake.params.settings["long_prompts"] == "drop",
    )
    rows = read_examples(snakemake.input.examples, "test")
    answers = replace(session, lm=trained.lm).answer(rows, n_features=0)
    # Fine-tuning changes weights and adds nothing to the residual stream.
    write_answers(snakemake.output.answers, answers.assign(norm=None, n_features=None))
    used = {**vars(settings), "learning_rate": trained.learning_rate}
    write_json(snakemake.output.training, {**used, "losses": trained.losses})
