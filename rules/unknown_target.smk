# This rule never runs. It matches targets that no other rule makes, such as a misspelt product or
# an experiment that config.yaml lacks. Its error names the nearest valid target, which Snakemake's
# own error would not. It must be included last.
import re

from snakemake.io import strip_wildcard_constraints

from steering_core.config.requests import files_made, refuse_unknown_target

MADE_FILES = files_made(
    [strip_wildcard_constraints(str(file)) for rule in workflow.rules for file in rule.output],
    {"experiment": EXPERIMENTS, "run": CORRSTEER, "table": FILES, "concept_set": CONCEPT_SETS},
)


rule unknown_target:
    input:
        lambda wildcards: refuse_unknown_target(f"results/{wildcards.unknown}", config, MADE_FILES),
    output:
        "results/{unknown}",
    log:
        "results/logs/{unknown}.log",
    wildcard_constraints:
        unknown="(?!(?:{})$)[^/]+/[^/]+[.][a-z]+|(?!(?:{})/exports/(?:{})$)[^/]+/exports/[^/]+".format(
            "|".join(re.escape(f.split("/", 1)[1]) for made in MADE_FILES.values() for f in made),
            "|".join(map(re.escape, EXPERIMENTS)),
            "(?:" + "|".join([*METHODS, *PLANS, *PROGRAMS, *GATED]) + r")(?:-\d+)?",
        ),
    conda:
        "../envs/steering.yaml"
    shell:
        "false &> {log}"
