"""The path on which every program of the probe and the decoder has its solution."""

from steering_core.job import job

with job(snakemake):
    from steering_core.optimize.whole_path import whole_path
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.decoder import load_decoder

    probe = LinearProbe.load(snakemake.input.probe).oriented(snakemake.params.target_class)
    path = whole_path(load_decoder(snakemake.input.decoder), probe.weight_vector)
    path.save(snakemake.output.path)
