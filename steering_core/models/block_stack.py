"""What transformers builds from a configuration: its blocks, and the stream between them.

The modules are made on PyTorch's meta device, where a weight has a shape but no memory. So a model
of any size is looked at in about a second, before its weights are downloaded.
"""

import copy
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
)

from steering_core.errors import ModelError

if TYPE_CHECKING:  # takes seconds to import, and a stage may need the tokenizer alone
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class StopForward(Exception):  # noqa: N818 - control flow, never seen outside
    """Raised by a hook to end a forward pass once it has read what it wants."""


def build_skeleton(config: PretrainedConfig, name: str) -> "PreTrainedModel":
    """Return the model that ``AutoModelForCausalLM`` builds from ``config``, without weights.

    This is also the class that loads the weights later. It may differ from the class that
    ``config.architectures`` names: of some checkpoints with images, only the text model is built.

    Args:
        config: of the model.
        name: of the model, for messages.

    Raises:
        ModelError: if there is no such class, it needs a package that is not installed, it is a
            masked language model, or it keeps several residual streams.
    """
    kind = type(config).__name__
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{name}: transformers builds no causal language model from a {kind} "
            "(AutoModelForCausalLM has no class for it). Choose a checkpoint of the text model "
            "alone, if there is one."
        )
    if getattr(config.get_text_config(), "altup_num_inputs", 1) > 1:
        raise ModelError(
            f"{name}: the blocks of a {kind} pass on several streams in parallel (AltUp), and an "
            "SAE reads one. Choose another model."
        )
    try:
        with torch.device("meta"):
            # A copy: building writes into the configuration. Eager attention, since the mask of
            # sdpa depends on values, and here are none.
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation="eager", trust_remote_code=False
            )
    except ImportError as error:
        raise ModelError(f"{name}: a {kind} cannot be built here: {error}") from error
    own = model.config
    if type(own) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(own, "is_decoder", True):
        raise ModelError(
            f"{name}: a {kind} with is_decoder: false is a masked language model, whose tokens see "
            "those after them. Choose a causal language model."
        )
    return model.eval()


def find_blocks(model: "PreTrainedModel", name: str) -> str:
    """Return the path of the one stack of ``num_hidden_layers`` blocks in the module tree.

    Args:
        model: as :func:`build_skeleton` returns it.
        name: of the model, for messages.

    Raises:
        ModelError: if there is none, or more than one.
    """
    n_layers = model.config.get_text_config().num_hidden_layers
    stacks = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and next(module.parameters(), None) is not None
    ]
    # A list inside a block belongs to that block.
    stacks = [path for path in stacks if not any(path.startswith(f"{s}.") for s in stacks)]
    if len(stacks) > 1:  # blocks may differ in kind, but rather are alike
        alike = [s for s in stacks if len({type(b) for b in model.get_submodule(s)}) == 1]
        stacks = alike if len(alike) == 1 else stacks
    if len(stacks) != 1:
        raise ModelError(
            f"{name}: {type(model).__name__} has {len(stacks)} stacks of {n_layers} blocks, "
            f"so where to steer is unknown: {stacks}. Choose another model."
        )
    return stacks[0]


def check_stream(model: "PreTrainedModel", blocks_path: str, name: str) -> None:
    """Make sure that the first block reads one vector of ``hidden_size`` for each token.

    The skeleton runs up to its first block. Where it cannot, because an operation needs values,
    the check is left to :func:`steering_core.models.residual_stream.check_blocks`, which runs as
    soon as the weights are loaded.

    Args:
        model: as :func:`build_skeleton` returns it.
        blocks_path: as :func:`find_blocks` returns it.
        name: of the model, for messages.

    Raises:
        ModelError: if the stream has another shape.
    """
    seen: list[torch.Size] = []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).shape)
        raise StopForward

    first = model.get_submodule(blocks_path)[0]
    handle = first.register_forward_pre_hook(before, with_kwargs=True)
    ids = torch.zeros(1, 1, dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except StopForward:
        pass
    except RuntimeError as error:  # of the meta device
        log.info("%s: the stream is checked when the weights are there: %s", name, error)
    finally:
        handle.remove()
    d_model = model.config.get_text_config().hidden_size
    for shape in seen:
        if tuple(shape) != (1, 1, d_model):
            raise ModelError(
                f"{name}: the first block of {type(model).__name__} reads a tensor of shape "
                f"{tuple(shape)} for one token, not (1, 1, {d_model}), so there is no one residual "
                "stream to steer. Choose another model."
            )
