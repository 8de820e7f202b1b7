"""Sparse steering of language models through SAE features, measured.

Data flows one way through the subpackages::

    data -> models -> activations -> statistics, probes -> optimize, methods
         -> generation -> metrics -> tables

``config`` describes an experiment, ``runtime`` surrounds every stage, ``storage`` writes files,
``demo`` makes a small world in which the truth is known. Nothing here knows Snakemake.
"""

__version__ = "0.2.0"
