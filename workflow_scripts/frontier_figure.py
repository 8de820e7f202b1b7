"""The exact frontier of the programs, in closed form along the path."""

from steering_core.job import job

with job(snakemake):
    pass
