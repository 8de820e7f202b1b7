"""Residuals at the last token of texts that are not in the cache."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from steering_core.errors import ModelError
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.residual_stream import read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import padded_batches, tokenize_many


def last_token_residuals(
    lm: LanguageModel,
    texts: Sequence[str],
    site: Site,
    *,
    max_tokens: int,
    batch_tokens: int,
    control_tokens: bool = False,
) -> Float[np.ndarray, "n d_model"]:
    """Return the last-token residual of each text, as the site sees it.

    ``control_tokens`` is for texts that a chat template wrote.

    Raises:
        ModelError: if a residual is NaN or infinite.
    """
    rows = tokenize_many(
        lm.tokenizer,
        texts,
        prepend_bos=site.prepend_bos,
        max_tokens=max_tokens,
        control_tokens=control_tokens,
    )
    out = np.empty((len(rows), lm.shape.d_model), dtype=np.float32)
    batches = padded_batches(
        rows,
        lm.tokenizer,
        prepend_bos=site.prepend_bos,
        context=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    for chosen, batch in batches:
        last = torch.arange(len(chosen)), batch.mask.sum(dim=1) - 1
        residuals = read_residuals(lm, [site], batch.ids, batch.mask, last)[site.hook_name]
        out[chosen] = site.view(residuals.float().cpu().numpy())
    if not np.isfinite(out).all():
        raise ModelError(
            f"residuals at {site.hook_name} are NaN or infinite in {dtype_name(lm)}: set "
            "`dtype: bfloat16` or `float32` in the model's section; in float32 the weights are "
            "damaged."
        )
    return out
