# How little must be touched inside a language model to steer it, and what does that cost?
#
#   snakemake --cores 2                                       the demo: a small world, no network
#   snakemake --cores 8 results/gemma_sst2/pareto.csv         one experiment
#   snakemake --cores 8 all                                   all experiments
#
# CorrSteer has its own targets: results/{run}/corrsteer.csv, corrsteer (all of them), corrsteer_tables.
# The rule files are included in the order in which data flows; CorrSteer's follow the others.
import os
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

from steering_core.runtime.run import explain_failures
from steering_core.runtime.run import take_over

min_version("9.0")

# envs/steering.post-deploy.sh installs the package from here.
os.environ.update(STEERING_CORE_ROOT=str(workflow.basedir))

# A killed run leaves its directory locked. The next run removes the lock if that run is dead.
if workflow.is_main_process and take_over(Path(".snakemake")):
    logger.info("Removed the lock of a run that was killed.")


configfile: "config.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"
include: "rules/resources_common.smk"
include: "rules/methods.smk"
include: "rules/train_saes_common.smk"
include: "rules/demo.smk"
include: "rules/train_saes.smk"
include: "rules/fetch_common.smk"
include: "rules/gguf.smk"
include: "rules/fetch.smk"
include: "rules/activations.smk"
include: "rules/layer_sweep.smk"
include: "rules/layer_effect.smk"
include: "rules/probes.smk"
include: "rules/gradients.smk"
include: "rules/guards.smk"
include: "rules/solve.smk"
include: "rules/lora.smk"
include: "rules/generate.smk"
include: "rules/pareto_common.smk"
include: "rules/pareto.smk"
include: "rules/answer.smk"
include: "rules/products_common.smk"
include: "rules/products.smk"
include: "rules/exports.smk"
include: "rules/ratings.smk"
include: "rules/corrsteer_common.smk"
include: "rules/corrsteer_select.smk"
include: "rules/corrsteer_answer.smk"
include: "rules/corrsteer_report.smk"
include: "rules/corrsteer_tables.smk"
include: "rules/corrsteer_demo.smk"
include: "rules/elsewhere_common.smk"
include: "rules/elsewhere.smk"


# End with advice on what to change, after Snakemake's own messages.
onerror:
    for line in explain_failures(log):
        print("failed:", line, file=sys.stderr)


# End with what was found.
onsuccess:
    for line in verdicts_made():
        print(line)


localrules:
    all,
    demo,


rule all:
    input:
        expand("results/{experiment}/{product}", experiment=EXPERIMENTS, product=PRODUCTS),


# Without a target the demo is made: it needs no network, no licence and a few minutes.
rule demo:
    default_target: True
    input:
        expand("results/demo/{product}", product=PRODUCTS),
        expand(
            "results/demo_praise/{product}",
            product=[
                "corrsteer.csv",
                "corrsteer_changes.html",
                "planted_feature.json",
                "provenance.json",
            ],
        ),


include: "rules/unknown_target.smk"
