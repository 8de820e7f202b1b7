"""Answer the test rows under methods of optimal sparse steering, each at its best strength."""

from steering_core.runtime.job import job

with job(snakemake):
    from functools import cache, partial
    from pathlib import Path
    from types import SimpleNamespace

    from steering_core.config.model import Model
    from steering_core.corrsteer.examples import read_answered, read_examples
    from steering_core.corrsteer.kept_answers import KeptAnswers
    from steering_core.corrsteer.plan import Plan
    from steering_core.corrsteer.sparse_methods import answer_sparse_method
    from steering_core.corrsteer.training_data import fisher_of_answers
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.sparse_autoencoder import decoder_rows
    from steering_core.storage.files import read_json, write_text
    from steering_core.storage.integrity import content_digest
    from steering_core.storage.parquet import one_below_the_other, write_parquet

    files, params, made = snakemake.input, snakemake.params, snakemake.output.answers
    resources, folder = read_json(files.resources), Path(made).parent
    kept = KeptAnswers(params, resources, files.examples, folder)

    @cache
    def rows_of():  # the SAEs are not read if every table is there
        return decoder_rows(pinned_sae(Model(**params.model), resources))

    seed = int(snakemake.wildcards.seed)
    programs = {name: SimpleNamespace(**one["declared"]) for name, one in params.programs.items()}
    settings = SimpleNamespace(**params.sparse_methods, programs=programs)
    estimates = [one["fisher"] for one in params.programs.values() if one["fisher"] is not None]

    @cache
    def fisher(site):  # the same for every program
        rows = read_examples(files.examples, "train")
        return fisher_of_answers(kept.session, rows, site, SimpleNamespace(**estimates[0]), seed)

    def answer(method):
        found = answer_sparse_method(
            kept.session,
            method,
            settings,
            Plan.load(files.plan),
            rows_of(),
            read_answered(files.examples, "train", files.training),
            read_examples(files.examples, "validation"),
            read_examples(files.examples, "test"),
            seed=seed,
            fisher=fisher,
        )
        validation = folder / "validation" / f"{method}.csv"
        write_text(validation, found.validation.to_csv(index=False))
        return found.answers

    made_from = {
        **kept.made_from("train", "validation", "test"),
        "sae_revision": resources["sae_revision"],
        "training": content_digest(files.training),
        "plan": content_digest(files.plan),
        "seed": snakemake.wildcards.seed,
    }

    def settings_of(method):
        shared = params.sparse_methods
        if method not in params.programs:
            return {"sparse_methods": shared}
        read = {name: shared[name] for name in ("features", "units")}
        return {"sparse_methods": {**read, **params.programs[method]}}

    tables = (
        kept.answers(method, {**made_from, **settings_of(method)}, partial(answer, method))
        for method in params.methods
    )
    write_parquet(made, one_below_the_other(tables))
