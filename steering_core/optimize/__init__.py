"""Sparsest interventions that move a probe past its margin: exact, certified, for every input."""
