"""Gradients of log p of tokens with respect to the residual stream at a site."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import ModelError
from steering_core.models.head import final_hidden, logits_of
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch

#: Returns k tokens for each of n positions, (k, n), from their logits and which positions these are
#: among all that predict.
Targets = Callable[[Float[torch.Tensor, "n vocabulary"], slice], Int[torch.Tensor, "k n"]]

#: Positions whose logits are held at a time; there are 256k logits of a position in a Gemma.
_ROWS = 64


def residual_gradients(
    lm: LanguageModel,
    site: Site,
    batch: TokenBatch,
    predicting: Bool[torch.Tensor, "batch seq"],
    targets: Targets,
) -> Float[torch.Tensor, "k batch seq d_model"]:
    """Return ``∂ Σ log p(target) / ∂ residual`` at every position of a site.

    The sum is over the positions that predict, in each text. Weights get no gradient. One forward
    pass serves all k draws of targets; each costs a backward pass from the head to the site.

    Args:
        lm: the model.
        site: where the residuals are.
        batch: texts, padded on the right.
        predicting: positions whose next token counts, on the model's device.
        targets: the tokens whose log p is summed, for each predicting position in the order of
            ``predicting.nonzero()``.

    Raises:
        ModelError: if a gradient is NaN or infinite, or no residual passes the site.
    """
    batch = batch.to(lm.device)
    passed: list[torch.Tensor] = []

    def mark(residual: torch.Tensor) -> torch.Tensor:
        leaf = residual.detach().requires_grad_(True)
        passed.append(leaf)
        return leaf

    with torch.enable_grad():
        with edit_residual(lm, site, mark):
            hidden = final_hidden(lm, batch.ids, batch.mask)
        if not passed:
            raise ModelError(f"no residual stream passed {site.hook_name}: the hook did not fire.")
        above = _head_gradients(lm, hidden.detach()[predicting], targets)
        found = []
        for number, rows in enumerate(above):
            seed = torch.zeros_like(hidden)
            seed[predicting] = rows.to(hidden.dtype)
            [gradient] = torch.autograd.grad(
                hidden, passed[-1], seed, retain_graph=number + 1 < len(above)
            )
            found.append(gradient)
    gradients = torch.stack(found)
    if not torch.isfinite(gradients).all():
        raise ModelError(
            f"gradients at {site.hook_name} are NaN or infinite in {dtype_name(lm)}: set "
            "`dtype: bfloat16` or `float32` in the model's section."
        )
    return gradients


def _head_gradients(
    lm: LanguageModel, hidden: Float[torch.Tensor, "n d_model"], targets: Targets
) -> Float[torch.Tensor, "k n d_model"]:
    """Return ``∂ Σ log p(target) / ∂ hidden``, some positions at a time."""
    pieces = []
    for start in range(0, len(hidden), _ROWS):
        rows = slice(start, min(start + _ROWS, len(hidden)))
        piece = hidden[rows].clone().requires_grad_(True)
        log_p = logits_of(lm, piece).log_softmax(dim=-1)
        tokens = targets(log_p.detach(), rows).to(log_p.device)
        sums = [log_p.gather(1, chosen[:, None]).sum() for chosen in tokens]
        pieces.append(
            torch.stack([torch.autograd.grad(s, piece, retain_graph=True)[0] for s in sums])
        )
    return torch.cat(pieces, dim=1)
