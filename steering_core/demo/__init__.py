"""A small world in which the truth is known: a grammar, a model trained on it, and its SAEs.

Import from the modules: `grammar`, `concept` and `choice_task` need neither torch nor sae-lens.
"""
