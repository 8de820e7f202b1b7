"""The linear modules of a model that an adapter can change, from its configuration alone."""

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from steering_core.config.validation import hint
from steering_core.errors import ModelError


def linear_modules(config: PretrainedConfig) -> list[str]:
    """Return the names of the linear modules, without the output head; no weights are made."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def check_linear_modules(config: PretrainedConfig, wanted: list[str] | str) -> None:
    """Refuse the name of a module that no linear module of the model has, or ends in.

    Args:
        config: of the model.
        wanted: names as ``lora.modules`` gives them; ``all-linear`` is always there.

    Raises:
        ModelError: naming the first such name, and those there are.
    """
    if wanted == "all-linear":
        return
    names = linear_modules(config)
    ends = sorted({name.rsplit(".", 1)[-1] for name in names})
    for one in wanted:
        if not any(name == one or name.endswith(f".{one}") for name in names):
            raise ModelError(
                f"lora.modules: the model has no linear module {one!r}{hint(one, ends)}; "
                f"there are {', '.join(ends)}"
            )
