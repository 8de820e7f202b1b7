"""Write the demo's corpora, lexicon and concept texts."""

from steering_core.runtime.job import job

with job(snakemake):
    from steering_core.demo.grammar import write_concept, write_corpus, write_praise_task
    from steering_core.demo.vocabulary import write_lexicon

    seed = snakemake.params.seed
    write_corpus(snakemake.output.labelled, snakemake.params.labelled, seed, unfinished=True)
    # Use another seed of the same grammar, so that the model is not trained on the labelled rows.
    write_corpus(snakemake.output.training, snakemake.params.documents, seed + 1)
    write_lexicon(snakemake.output.lexicon)
    write_concept(snakemake.output.concept, seed)
    write_praise_task(snakemake.output.praise, snakemake.params.labelled, seed + 2)
