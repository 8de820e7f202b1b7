# Make the demo's world: a corpus with known sentiment, and a language model. The SAEs of that model
# are trained as those of any other (rules/train_saes.smk).
DEMO = load_config(config)[0].demo_world


rule demo_corpus:
    output:
        labelled="results/demo/corpus.parquet",
        training="results/demo/training_corpus.parquet",
        lexicon="results/demo/lexicon.json",
        concept="results/demo/concept.yaml",
        praise="results/demo/praise_task.parquet",
    log:
        "results/demo/logs/demo_corpus.log",
    benchmark:
        "results/demo/benchmarks/demo_corpus.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        labelled=DEMO.labelled,
        documents=DEMO.documents,
        seed=DEMO.seed,
        code=code("demo_corpus.py"),
    script:
        "../workflow_scripts/demo_corpus.py"


rule demo_language_model:
    input:
        corpus=rules.demo_corpus.output.training,
    output:
        model=directory("results/demo/language_model"),
    log:
        "results/demo/logs/demo_language_model.log",
    benchmark:
        "results/demo/benchmarks/demo_language_model.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    params:
        world=DEMO.model_dump(include={"d_model", "n_layers", "training_steps", "seed"}),
        saes=checked(without_layers_beyond),
        code=code("demo_language_model.py"),
    script:
        "../workflow_scripts/demo_language_model.py"
