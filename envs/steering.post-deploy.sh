#!/usr/bin/env bash
# Snakemake runs this once in the new conda environment: the rules' scripts import the package.
set -euo pipefail
pip install --no-deps --editable .
