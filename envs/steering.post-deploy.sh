#!/usr/bin/env bash
# Snakemake runs this once in the new conda environment, because the rules' scripts import the
# package. The Snakefile sets its location, which can differ from the working directory (--directory).
set -euo pipefail
pip install --no-deps --editable "${STEERING_CORE_ROOT:-.}"
