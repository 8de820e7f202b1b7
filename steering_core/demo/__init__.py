"""A small world with known truth: a grammar, a model trained on its texts, and the model's SAEs.

Import from the modules: `vocabulary` and `grammar` need neither torch nor sae-lens.
"""
