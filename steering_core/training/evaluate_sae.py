"""What an SAE is worth on texts that did not train it: its own numbers, and the model's loss."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from sae_lens import SAE

from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import edit_residual
from steering_core.models.site import Site
from steering_core.models.tokens import padded_batches, tokenize_many
from steering_core.progress import progress
from steering_core.statistics.bootstrap import Interval, ratio_interval, resampled_sums

_ENCODED_ROWS = 4096
_RESAMPLES = 2000


@torch.no_grad()
def measure_texts(
    sae: SAE,
    activations: Float[torch.Tensor, "tokens d_model"],
    text_of: np.ndarray,
    *,
    seed: int,
) -> dict[str, float | int | None]:
    """Return what an SAE is worth on a sample: columns of ``sparse_autoencoders.csv``.

    ``l0`` is the mean number of active features of a token. ``explained_variance`` is
    1 − Σ‖x − x̂‖² / Σ‖x − x̄‖² over all tokens. Both have bootstrap 95 % intervals over texts.
    ``dead_features`` is the number of features that no token of the sample activates.
    ``token_explained_variance`` is the median over tokens of 1 − ‖x − x̂‖² / ‖x − x̄‖²: a few tokens
    of huge norm decide the sum over all tokens, and not this. Tokens are encoded piece by piece, so
    that memory stays small.

    Args:
        sae: as loaded from disk.
        activations: of the tokens of held-out texts.
        text_of: an integer for each token that says which text it belongs to.
        seed: of the resampling.
    """
    mean = activations.float().mean(0)
    n_active, errors, totals = (np.empty(len(activations)) for _ in range(3))
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for start in range(0, len(activations), _ENCODED_ROWS):
        rows = slice(start, start + _ENCODED_ROWS)
        x = activations[rows].float()
        features = sae.encode(x.to(sae.device))
        active = features > 0
        n_active[rows] = active.sum(1).cpu().numpy()
        fired |= active.any(0).cpu()
        errors[rows] = (sae.decode(features).cpu() - x).double().pow(2).sum(1).numpy()
        totals[rows] = (x - mean).double().pow(2).sum(1).numpy()
    texts, at = np.unique(text_of, return_inverse=True)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, values, len(texts))

    l0 = ratio_interval(sums(n_active), sums(np.ones(len(at))), seed=seed)
    variance = ratio_interval(sums(totals - errors), sums(totals), seed=seed)
    return {
        **_columns("l0", l0),
        **_columns("explained_variance", variance),
        "token_explained_variance": float(np.median(1 - errors / totals)),
        "dead_features": int((~fired).sum()),
        "n_held_out_tokens": len(activations),
        "n_held_out_texts": len(texts),
    }


@torch.no_grad()
def measure_loss(
    lm: LanguageModel,
    sae: SAE,
    site: Site,
    texts: Sequence[str],
    *,
    max_tokens: int,
    batch_tokens: int,
    seed: int,
) -> dict[str, float | int | None]:
    """Return the loss of the model with the SAE's reconstruction in place of the residual.

    The recovered share is (loss_zero − loss_spliced) / (loss_zero − loss), as in sae-lens's
    evaluation: 1 if the reconstruction costs nothing, 0 if it is no better than a residual of
    zeros. Losses are in nats a token. BOS keeps its own residual, as it trained no SAE.

    Args:
        lm: the model.
        sae: as loaded from disk.
        site: where the SAE reads.
        texts: that did not train it.
        max_tokens: at which they are cut.
        batch_tokens: of a forward pass.
        seed: of the resampling of texts.
    """
    rows = tokenize_many(lm.tokenizer, texts, prepend_bos=site.prepend_bos, max_tokens=max_tokens)
    found = {name: np.zeros(len(rows)) for name in ("clean", "spliced", "zero", "tokens")}
    batches = list(
        padded_batches(
            rows,
            lm.tokenizer,
            prepend_bos=site.prepend_bos,
            context=lm.shape.context,
            batch_tokens=batch_tokens,
        )
    )
    for chosen, padded in progress(batches, "splicing reconstructions in"):
        batch = padded.to(lm.device)
        mask = batch.mask & ~batch.bos

        def spliced(stream: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            made = sae.decode(sae.encode(stream[mask].to(sae.device, sae.dtype)))
            return stream.index_put((mask,), made.to(stream.device, stream.dtype))

        def zeroed(stream: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            return stream.masked_fill(mask.unsqueeze(-1), 0)

        found["clean"][chosen] = _losses(lm, batch.ids, batch.mask)
        with edit_residual(lm, site, spliced):
            found["spliced"][chosen] = _losses(lm, batch.ids, batch.mask)
        with edit_residual(lm, site, zeroed):
            found["zero"][chosen] = _losses(lm, batch.ids, batch.mask)
        found["tokens"][chosen] = batch.mask[:, 1:].sum(1).cpu().numpy()
    gain, room = found["zero"] - found["spliced"], found["zero"] - found["clean"]
    recovered = _recovered(gain, room, seed)
    n = int(found["tokens"].sum())
    named = {"loss": "clean", "loss_spliced": "spliced", "loss_zero": "zero"}
    return {
        **{name: float(found[of].sum() / n) if n else None for name, of in named.items()},
        **_columns("loss_recovered", recovered),
        "n_loss_tokens": n,
    }


def _losses(
    lm: LanguageModel,
    ids: torch.Tensor,
    mask: Bool[torch.Tensor, "batch seq"],
) -> Float[np.ndarray, " batch"]:
    """Return the cross-entropy of the next token in nats, summed over each row."""
    run: Callable = lm.model
    logits = run(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
    )
    return (loss * mask[:, 1:]).sum(1).double().cpu().numpy()


def _recovered(gain: Float[np.ndarray, " n"], room: Float[np.ndarray, " n"], seed: int) -> Interval:
    """Return Σ gain / Σ room over texts; empty where zeros cost nothing, as there is no scale."""
    if not len(room) or room.sum() <= 0:
        return Interval(None, None, None, len(room))
    above, below = resampled_sums([gain, room], seed=seed, n_resamples=_RESAMPLES)
    if (below <= 0).any():
        return Interval(float(gain.sum() / room.sum()), None, None, len(room))
    low, high = np.percentile(above / below, [2.5, 97.5])
    return Interval(float(gain.sum() / room.sum()), float(low), float(high), len(room))


def _columns(name: str, interval: Interval) -> dict[str, float | None]:
    return {
        name: interval.mean,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }
