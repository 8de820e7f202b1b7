"""Steered generation: interventions, the decode loop, and sampling seeded per example."""
