# Turn a GGUF file into a directory that transformers reads, once for all later stages.
rule dequantise:
    input:
        gguf_file,
    output:
        model=directory(f"{GGUF_FOLDER}/{{gguf}}"),
    log:
        f"{GGUF_FOLDER}/logs/{{gguf}}.log",
    benchmark:
        "results/gguf/benchmarks/dequantise-{gguf}.tsv"
    conda:
        "../envs/steering.yaml"
    threads: 2
    resources:
        mem_mb=megabytes(16000),
        runtime=minutes(60),
    params:
        source=lambda wildcards: GGUF[wildcards.gguf].id,
        revision=lambda wildcards: GGUF[wildcards.gguf].revision,
        code=code("dequantise.py"),
    script:
        "../workflow_scripts/dequantise.py"
