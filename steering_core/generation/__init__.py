"""Steered generation: a vector per example, batched, seeded per example."""
