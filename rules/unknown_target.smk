# Never runs: asked for a file of an experiment that no rule makes, or of an experiment that
# config.yaml lacks, it names the nearest one, where Snakemake alone would not say what could have
# been meant. Included last: it takes what no other rule makes.
import re

from snakemake.io import strip_wildcard_constraints

from steering_core.config.unknown_target import files_made, refuse_target

MADE_FILES = files_made(
    [strip_wildcard_constraints(str(file)) for rule in workflow.rules for file in rule.output],
    {"experiment": EXPERIMENTS, "run": CORRSTEER, "table": FILES},
)


rule unknown_target:
    input:
        lambda wildcards: refuse_target(f"results/{wildcards.unknown}", config, MADE_FILES),
    output:
        "results/{unknown}",
    log:
        "results/logs/{unknown}.log",
    wildcard_constraints:
        unknown="(?!(?:{})$)[^/]+/[^/]+[.][a-z]+".format(
            "|".join(re.escape(f.split("/", 1)[1]) for made in MADE_FILES.values() for f in made)
        ),
    conda:
        "../envs/steering.yaml"
    shell:
        "false &> {log}"
