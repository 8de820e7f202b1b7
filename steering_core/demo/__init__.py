"""A small world with known truth: a grammar, and a language model trained on its texts.

Import from the modules: `vocabulary` and `grammar` do not need torch.
"""
