"""A causal language model of transformers: its shape, its blocks, and how it is loaded.

The shape is known before any weight is read. The modules are first built on PyTorch's meta device,
where a weight has a shape but no memory, so a model of any size is inspected in about a second.
"""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from steering_core.config.model import Model
from steering_core.errors import ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.models.devices import DTYPES, choose_device, choose_dtype
from steering_core.models.tokens import check_special_tokens

if TYPE_CHECKING:  # takes seconds to import, and a stage may need the tokenizer alone
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

#: Keys of a configuration that may give the largest number of positions, in this order.
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
#: Positions used for models without a limit (Bloom's ALiBi, Mamba), as most are trained.
UNLIMITED = 2048


@dataclass(frozen=True)
class ModelShape:
    """The shape of a model, known from its configuration before any weight is read.

    Attributes:
        n_layers: transformer blocks.
        d_model: width of the residual stream.
        context: largest number of positions of a text.
        blocks_path: where the blocks are in the module tree that ``AutoModelForCausalLM`` builds.
        architecture: name of the class that it builds.
    """

    n_layers: int
    d_model: int
    context: int
    blocks_path: str
    architecture: str


@dataclass(frozen=True)
class LanguageModel:
    """A model in eval mode without gradients, and its tokenizer (which has a pad token).

    The modules of transformers run unchanged, with hooks on the blocks. The residual stream is
    the same as that of TransformerLens, and attention and ``generate`` stay as they are.
    """

    model: "PreTrainedModel"
    tokenizer: PreTrainedTokenizerBase
    shape: ModelShape

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        return self.model.get_submodule(self.shape.blocks_path)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the residual stream."""
        return self.model.dtype


class StopForward(Exception):  # noqa: N818 - control flow, never seen outside
    """Raised by a hook to end a forward pass after its last reading."""


@contextmanager
def removed_after(*hooks: RemovableHandle) -> Iterator[None]:
    """Remove hooks when the block ends, by an error too."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def dtype_name(lm: LanguageModel) -> str:
    """Return the dtype of a model under its name in the configuration."""
    return str(lm.dtype).removeprefix("torch.")


def load_config(repository: str, revision: str) -> PretrainedConfig:
    """Read only the configuration of a model.

    Raises:
        ModelError: if it cannot be read, with what to do.

    """
    try:
        with explain_hub_errors(repository):
            return AutoConfig.from_pretrained(repository, revision=revision)
    except ValueError as error:  # no config.json in a directory, or an unknown model type
        raise ModelError(
            f"{repository} holds no model that transformers can read: {error}"
        ) from error


def load_shape(model: Model) -> ModelShape:
    """Return the shape of ``model`` from its configuration.

    Raises:
        ModelError: as :func:`load_config` and :func:`model_shape`.
    """
    return model_shape(load_config(model.id, model.revision), model.id)


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Load the tokenizer and give it a pad token (masked everywhere) if it has none.

    Raises:
        ModelError: if it cannot be read or has neither a pad nor an end token.

    """
    with explain_hub_errors(model.id):
        tokenizer = AutoTokenizer.from_pretrained(model.id, revision=model.revision)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"{model.id}: the tokenizer has neither a pad nor an end token: name one in its "
                "tokenizer_config.json (in a local copy of the model)."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_language_model(
    model: Model, device: str = "auto", shape: ModelShape | None = None
) -> LanguageModel:
    """Load ``model`` in its configured dtype; ``shape`` is what :func:`load_shape` found, if known.

    Raises:
        ModelError: if it cannot be loaded, or the files lack some of its weights, with what to do.

    """
    tokenizer = load_tokenizer(model)
    with explain_hub_errors(model.id):
        loaded, info = AutoModelForCausalLM.from_pretrained(
            model.id,
            revision=model.revision,
            dtype=DTYPES[choose_dtype(model.dtype, device)],
            use_safetensors=True,  # the other format can run code
            output_loading_info=True,
        )
    if lacking := sorted(info["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"{model.id} lacks {len(lacking)} weights of {type(loaded).__name__}, the first is "
            f"{lacking[0]}: it is a checkpoint of another kind of model. Choose one of a causal "
            "language model."
        )
    check_special_tokens(tokenizer, loaded.get_input_embeddings().weight.shape[0], model.id)
    loaded = loaded.to(choose_device(device)).eval().requires_grad_(False)
    # Drop the decoding defaults of the repository (repetition penalty, beams): they would change
    # the sampled distribution. Only the special tokens are kept.
    own = loaded.generation_config
    loaded.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return LanguageModel(loaded, tokenizer, shape or model_shape(loaded.config, model.id))


def model_shape(config: PretrainedConfig, name: str) -> ModelShape:
    """Return the shape of the model that transformers builds from a configuration.

    Raises:
        ModelError: if transformers builds no causal language model from it, or the model has no
            single stack of blocks with one residual stream.

    """
    model = build_skeleton(config, name)
    text = model.config.get_text_config()
    sizes = ("num_hidden_layers", "hidden_size")
    missing = [size for size in sizes if not isinstance(getattr(text, size, None), int)]
    if missing:
        raise ModelError(
            f"{name}: the configuration of {config.model_type} has no {missing[0]}. Choose "
            "another model."
        )
    blocks_path = find_blocks(model, name)
    check_stream(model, blocks_path, name)
    return ModelShape(
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        context=_context(text, name),
        blocks_path=blocks_path,
        architecture=type(model).__name__,
    )


def _context(text: PretrainedConfig, name: str) -> int:
    """Return how many positions the model has."""
    found = (getattr(text, size, None) for size in _CONTEXTS)
    named = next((size for size in found if isinstance(size, int)), None)
    if named is None:
        log.info("%s: no limit of positions is configured, %d are used", name, UNLIMITED)
    return UNLIMITED if named is None else named


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
            # A copy, since building writes into the configuration. Eager attention, since the
            # mask of sdpa depends on values, which the meta device does not have.
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
    if len(stacks) > 1:  # a stack of one class of block is the more likely one
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
    hook = first.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with removed_after(hook), suppress(StopForward), torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.long, device="meta")
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except RuntimeError as error:  # of the meta device
        log.info("%s: the stream is checked when the weights are there: %s", name, error)
    d_model = model.config.get_text_config().hidden_size
    for shape in seen:
        if tuple(shape) != (1, 1, d_model):
            raise ModelError(
                f"{name}: the first block of {type(model).__name__} reads a tensor of shape "
                f"{tuple(shape)} for one token, not (1, 1, {d_model}), so there is no one residual "
                "stream to steer. Choose another model."
            )


def is_local(model_id: str) -> bool:
    """Return True if ``model_id`` is a local directory."""
    return Path(model_id).is_dir()
