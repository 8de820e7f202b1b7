"""A Hugging Face causal language model with its transformer blocks found."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import (
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
from steering_core.models.block_stack import build_skeleton, check_stream, find_blocks
from steering_core.models.devices import DTYPES, choose_device
from steering_core.models.tokens import check_special_tokens

if TYPE_CHECKING:  # takes seconds to import, and a stage may need the tokenizer alone
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

#: Names of the largest number of positions, in the order in which they are looked for.
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
#: Positions of models without such a limit (Bloom's ALiBi, Mamba): the length most are trained at.
UNLIMITED = 2048


@dataclass(frozen=True)
class ModelShape:
    """What the configuration alone tells, before any weight is read.

    Attributes:
        n_layers: transformer blocks.
        d_model: width of the residual stream.
        context: positions that a text may have.
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

    The Hugging Face modules run as they are, with hooks on the blocks: this gives the same
    residual stream as a TransformerBridge and leaves sdpa attention and ``generate`` untouched.
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
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the residual stream."""
        return self.model.dtype


def model_shape(config: PretrainedConfig, name: str) -> ModelShape:
    """Read the shape from what transformers builds from a Hugging Face configuration.

    Raises:
        ModelError: if it builds no causal language model, or one without a single stack of blocks
            with one residual stream between them.

    """
    model = build_skeleton(config, name)
    text = model.config.get_text_config()
    sizes = ("num_hidden_layers", "hidden_size")
    missing = [size for size in sizes if not isinstance(getattr(text, size, None), int)]
    if missing:
        raise ModelError(f"{name}: the configuration of {config.model_type} has no {missing[0]}.")
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
    """Return the shape of ``model`` from its configuration; errors as of both."""
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
            raise ModelError(f"{model.id}: the tokenizer has neither a pad nor an end token.")
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
            dtype=DTYPES[model.dtype],
            use_safetensors=True,  # the other format can run code
            output_loading_info=True,
        )
    if lacking := sorted(info["missing_keys"]):  # transformers makes them up, with a warning
        raise ModelError(
            f"{model.id} lacks {len(lacking)} weights of {type(loaded).__name__}, the first is "
            f"{lacking[0]}: it is a checkpoint of another kind of model. Choose one of a causal "
            "language model."
        )
    check_special_tokens(tokenizer, loaded.get_input_embeddings().weight.shape[0], model.id)
    loaded = loaded.to(choose_device(device)).eval().requires_grad_(False)
    # A repository's own decoding habits (repetition penalty, beams, no cache) would change the
    # distribution behind our back: keep the special tokens alone.
    own = loaded.generation_config
    loaded.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    return LanguageModel(loaded, tokenizer, shape or model_shape(loaded.config, model.id))


def dtype_name(lm: LanguageModel) -> str:
    """Return the precision of a model as the configuration names it."""
    return str(lm.dtype).removeprefix("torch.")


def is_local(model_id: str) -> bool:
    """Whether ``model_id`` names a directory here."""
    return Path(model_id).is_dir()
