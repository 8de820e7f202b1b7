"""Answer the test rows under a method of optimal sparse steering, at its best strength."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.answers import write_answers
    from steering_core.corrsteer.examples import read_answered, read_examples
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.session import open_session
    from steering_core.corrsteer.sparse_methods import answer_sparse_method
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import decoder_rows
    from steering_core.storage.files import read_json, write_text

    resources = read_json(snakemake.input.resources)
    found = answer_sparse_method(
        open_session(
            snakemake.params.model,
            snakemake.params.task,
            SimpleNamespace(**snakemake.params.settings),
            resources,
        ),
        snakemake.wildcards.method,
        SimpleNamespace(**snakemake.params.sparse_methods),
        Plan.load(snakemake.input.plan),
        decoder_rows(pinned_sae(Model(**snakemake.params.model), resources)),
        read_answered(snakemake.input.examples, "train", snakemake.input.training),
        read_examples(snakemake.input.examples, "validation"),
        read_examples(snakemake.input.examples, "test"),
        seed=int(snakemake.wildcards.seed),
    )
    write_answers(snakemake.output.answers, found.answers)
    write_text(snakemake.output.validation, found.validation.to_csv(index=False))
