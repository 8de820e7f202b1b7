"""The transformer blocks of an architecture that TransformerLens does not know."""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from steering_core.errors import ModelError


def find_blocks(config: PretrainedConfig, name: str) -> str:
    """Return where the one stack of ``num_hidden_layers`` like blocks is in the module tree.

    The modules are made without memory for their weights.

    Raises:
        ModelError: if there is none, or more than one.

    """
    n_layers = config.get_text_config().num_hidden_layers
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ModelError(f"{name} is no causal language model of transformers: {error}") from error
    stacks = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and len({type(block) for block in module}) == 1
        and next(module.parameters(), None) is not None
    ]
    # A list inside a block belongs to that block.
    stacks = [path for path in stacks if not any(path.startswith(f"{s}.") for s in stacks)]
    if len(stacks) != 1:
        raise ModelError(
            f"{name}: {type(model).__name__} has {len(stacks)} stacks of {n_layers} like blocks, "
            f"so where to steer is unknown: {stacks}. Choose another model."
        )
    return stacks[0]
