# How little must be touched inside a language model to steer it, and what does that cost?
#
#   snakemake --cores 2 demo                                  a small world, no network
#   snakemake --cores 8 results/gemma_sst2/pareto.csv         one experiment
#   snakemake --cores 8 all                                   all of those
#
# CorrSteer has targets of its own: results/{run}/corrsteer.csv, corrsteer_tables.
# Data flows one way, and the rule files follow it; rules/corrsteer_*.smk are a family of their own.
import os
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

from steering_core.runtime.advice import explain_failures
from steering_core.runtime.locks import take_over

min_version("9.0")

# envs/steering.post-deploy.sh installs the package from here.
os.environ.update(STEERING_CORE_ROOT=str(workflow.basedir))

# A run that was killed cannot unlock its directory; the next one does so once it is dead.
if workflow.is_main_process and take_over(Path(".snakemake")):
    logger.info("Removed the lock of a run that was killed.")


configfile: "config.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"
include: "rules/method_families.smk"
include: "rules/demo.smk"
include: "rules/fetch.smk"
include: "rules/activations.smk"
include: "rules/layer_sweep.smk"
include: "rules/probes.smk"
include: "rules/solve.smk"
include: "rules/generate.smk"
include: "rules/pareto.smk"
include: "rules/products.smk"
include: "rules/corrsteer_common.smk"
include: "rules/corrsteer_select.smk"
include: "rules/corrsteer_answer.smk"
include: "rules/corrsteer_report.smk"
include: "rules/corrsteer_tables.smk"
include: "rules/corrsteer_demo.smk"


# The last thing on the screen is what to change, not where in Snakemake it surfaced.
onerror:
    for line in explain_failures(log):
        print("failed:", line, file=sys.stderr)


localrules:
    all,
    demo,


rule all:
    default_target: True
    input:
        expand("results/{experiment}/{product}", experiment=EXPERIMENTS, product=PRODUCTS),


rule demo:
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
