"""Interventions that leave the pipeline: on plain models of transformers, and for other programs."""
