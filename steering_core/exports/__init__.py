"""Interventions that leave the pipeline: on plain models, and for other programs."""
