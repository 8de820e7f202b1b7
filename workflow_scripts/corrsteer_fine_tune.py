"""Fine-tune on the training rows and answer the test rows."""

from steering_core.runtime.job import job

with job(snakemake):
    from dataclasses import replace
    from types import SimpleNamespace

    from steering_core.corrsteer.answers import answer_choice, write_answers
    from steering_core.corrsteer.examples import read_examples
    from steering_core.corrsteer.fine_tune import fine_tune
    from steering_core.corrsteer.run import open_run
    from steering_core.storage.files import read_json, write_json

    run = open_run(
        snakemake.params.model,
        snakemake.params.task,
        SimpleNamespace(**snakemake.params.settings),
        read_json(snakemake.input.resources),
    )
    settings = SimpleNamespace(**snakemake.params.fine_tuning)
    trained = fine_tune(
        run.lm,
        read_examples(snakemake.input.examples, "train"),
        settings,
        seed=int(snakemake.wildcards.seed),
        prepend_bos=run.how.prepend_bos,
        chat_template=run.how.chat_template,
        drop_long=snakemake.params.settings["long_prompts"] == "drop",
    )
    rows = read_examples(snakemake.input.examples, "test")
    answers = answer_choice(replace(run, lm=trained.lm), rows, None, None)
    # Its weights are changed, nothing is added to the stream.
    write_answers(snakemake.output.answers, answers.assign(norm=None, n_features=None))
    used = {**vars(settings), "learning_rate": trained.learning_rate}
    write_json(snakemake.output.training, {**used, "losses": trained.losses})
