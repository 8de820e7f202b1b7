"""A small world in which the truth is known: a grammar, a model trained on it, and its SAEs.

Import from the modules: `vocabulary` and `grammar` need neither torch nor sae-lens.
"""
