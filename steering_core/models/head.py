"""The language-model head: from the final hidden state to logits."""

import math
from contextlib import suppress

import torch
from jaxtyping import Bool, Float, Int
from torch.nn.functional import linear
from transformers import PretrainedConfig

from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel, StopForward, removed_after

#: Keys of a configuration whose value multiplies the logits (Cohere, Falcon-H1) or divides them
#: (Granite).
_MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)


def final_hidden(
    lm: LanguageModel, ids: Int[torch.Tensor, "batch seq"], mask: Bool[torch.Tensor, "batch seq"]
) -> Float[torch.Tensor, "batch seq d_model"]:
    """Return the input of the output embedding, from which logits are computed in chunks.

    This is the residual stream after the final norm, and after any cast or scale that the model
    applies. The pass ends there, so no logits are computed.

    Raises:
        ModelError: if the output embedding is not called.
    """
    read: list[torch.Tensor] = []

    def before(module: torch.nn.Module, args: tuple) -> None:
        read.append(args[0])
        raise StopForward

    hook = lm.model.get_output_embeddings().register_forward_pre_hook(before)
    with removed_after(hook), suppress(StopForward):
        lm.model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    if not read:
        raise ModelError(
            f"{lm.shape.architecture} does not call its output embedding, so KL and perplexity "
            "cannot be computed here: choose another model."
        )
    return read[0]


def vocabulary_size(lm: LanguageModel) -> int:
    """Return the number of logits of a position."""
    return len(lm.model.get_output_embeddings().weight)


def logits_of(
    lm: LanguageModel, hidden: Float[torch.Tensor, "*n d_model"], columns: slice = slice(None)
) -> Float[torch.Tensor, "*n vocabulary"]:
    """Return float32 logits: the output embedding of the final hidden state, scaled and capped.

    The scale and the soft cap are those that the model's configuration names.

    Args:
        lm: the model.
        hidden: as :func:`final_hidden` returns it.
        columns: the token ids whose logits are wanted.
    """
    config = lm.model.config.get_text_config()
    head = lm.model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    product = linear(hidden, head.weight[columns], None if bias is None else bias[columns])
    logits = product.float() * _scale(config)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits


def _scale(config: PretrainedConfig) -> float:
    """Return the factor by which a model multiplies its logits; 1 for most models."""
    above, below = (
        math.prod(getattr(config, name, None) or 1.0 for name in names)
        for names in (_MULTIPLIERS, _DIVISORS)
    )
    return above / below


@torch.no_grad()
def check_head(lm: LanguageModel) -> None:
    """Compare :func:`logits_of` with the model's own logits on two tokens.

    Raises:
        ModelError: if the model does more to its logits than a known scale and a soft cap, or if
            they are NaN.

    """
    ids = torch.tensor([[1, 2]], device=lm.device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    ours = logits_of(lm, final_hidden(lm, ids, mask))
    own = lm.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits.float()
    if own.isnan().any():
        raise ModelError(
            f"{lm.shape.architecture}: its logits are NaN: check the weights, or set "
            "`dtype: float32` in the model's section."
        )
    # The model may cap and scale in its own precision; this check looks for a missing factor.
    slack = 1e-3 if lm.dtype == torch.float32 else 3e-2
    if ours.shape != own.shape or not torch.allclose(ours, own, rtol=slack, atol=slack):
        raise ModelError(
            f"{lm.shape.architecture}: the logits are not the output embedding of the final hidden "
            "state (a scale of another name, or a second head?), so KL and perplexity cannot be "
            "computed here: choose another model."
        )
