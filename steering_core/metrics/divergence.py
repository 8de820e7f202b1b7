"""How far steering moves the model's predictions, and how odd its text is to the base model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptiveSteering, steer_positions_adaptively
from steering_core.generation.plan import AdaptivePlan
from steering_core.generation.steering import steer_positions
from steering_core.metrics.token_divergence import token_divergence
from steering_core.models.head import check_head, final_hidden
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch, padded_batches


@dataclass(frozen=True)
class Divergence:
    """Sums over the generated tokens of each text.

    Attributes:
        kl_sum: Σ KL(steered ‖ base), nats; NaN where steering makes hidden states or logits NaN or
            infinite, as a vector does that is too long for the model's dtype.
        base_nll_sum: Σ −log p_base(token), nats: the base model's surprise at the text. NaN where
            it is not finite: the base model gives a token the probability 0, or overflows on it.
        n_tokens: generated tokens, the end token included.
    """

    kl_sum: Float[np.ndarray, " n"]
    base_nll_sum: Float[np.ndarray, " n"]
    n_tokens: Int[np.ndarray, " n"]


@torch.no_grad()
def divergence(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    site: Site,
    vectors: Float[np.ndarray, "n d_model"] | None,
    adaptive: AdaptivePlan | None = None,
    steer_prompt: bool = False,
    batch_tokens: int = 2048,
) -> Divergence:
    """Compare the steered and the base model on the same texts.

    Both models read prompt and continuation; every position that predicts a generated token is
    compared, from the last prompt token on, and no other. The same positions are steered as in
    generation. Without ``vectors`` the KL is zero by definition and only the base pass runs.

    Args:
        lm: the model.
        prompts: token ids of the prompts.
        continuations: token ids of the texts generated under steering.
        site: where to steer.
        vectors: what was added for each text.
        adaptive: or the program that was solved at every steered position; it is solved there
            again, and finds the same, since positions do not see what is added to others at their
            own site.
        steer_prompt: whether the earlier prompt positions (not BOS) were steered too.
        batch_tokens: padded tokens at a time.

    Raises:
        ModelError: if the model does more to its logits than a known scale and a soft cap, or
            they are NaN or infinite on texts of the unsteered model.

    """
    rows = [[*a, *b] for a, b in zip(prompts, continuations, strict=True)]
    if rows:
        check_head(lm)
    kl, nll = np.zeros(len(rows)), np.zeros(len(rows))
    batches = padded_batches(
        rows,
        lm.tokenizer,
        prepend_bos=site.prepend_bos,
        context=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    for chosen, padded in batches:
        batch = padded.to(lm.device)
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=lm.device)
        predicting, steered_at = _places(batch, last, steer_prompt)
        base = final_hidden(lm, batch.ids, batch.mask)[predicting]
        steered = None
        if adaptive is not None:
            steered = _solved_anew(lm, batch, site, steered_at, adaptive, chosen)[predicting]
        elif vectors is not None:
            with steer_positions(lm, site, torch.tensor(vectors[chosen]), steered_at):
                steered = final_hidden(lm, batch.ids, batch.mask)[predicting]
        row, column = predicting.nonzero(as_tuple=True)
        kl_token, nll_token = token_divergence(lm, steered, base, batch.ids[row, column + 1])
        np.add.at(kl, np.array(chosen)[row.cpu().numpy()], kl_token.cpu().numpy())
        np.add.at(nll, np.array(chosen)[row.cpu().numpy()], nll_token.cpu().numpy())
    if vectors is None and adaptive is None and not np.isfinite(nll).all():
        raise ModelError(
            f"{lm.shape.architecture} has NaN or infinite logits without steering, in "
            f"{dtype_name(lm)}: set `dtype: bfloat16` or `float32` in the model's section."
        )
    kl, nll = (np.where(np.isfinite(sums), sums, np.nan) for sums in (kl, nll))
    return Divergence(kl, nll, np.array([len(row) for row in continuations]))


def _places(
    batch: TokenBatch, last: Int[torch.Tensor, " batch"], steer_prompt: bool
) -> tuple[Bool[torch.Tensor, "batch seq"], Bool[torch.Tensor, "batch seq"]]:
    """Return which positions predict a generated token, and which are steered."""
    after = torch.arange(batch.ids.shape[1], device=last.device)[None] >= last[:, None]
    predicting = after & batch.mask & batch.mask.roll(-1, dims=1)
    predicting[:, -1] = False
    return predicting, batch.mask & ~batch.bos & (after | steer_prompt)


def _solved_anew(
    lm: LanguageModel,
    batch: TokenBatch,
    site: Site,
    where: Bool[torch.Tensor, "batch seq"],
    adaptive: AdaptivePlan,
    chosen: list[int],
) -> torch.Tensor:
    """As :func:`final_hidden`, with the program of each text solved at the positions ``where``."""

    def run(steering: AdaptiveSteering) -> torch.Tensor:
        with steer_positions_adaptively(lm, site, steering, where):
            return final_hidden(lm, batch.ids, batch.mask)

    return adaptive.until_in_range(chosen, run)[0]
