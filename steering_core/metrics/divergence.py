"""The KL divergence that steering causes, and the perplexity of its texts under the base model.

Read from top to bottom: the table of a method's texts (:func:`text_divergence`), the sums over the
tokens of each text (:func:`divergence`), and the KL and the surprise of a token
(:func:`token_divergence`), which is where the KL is computed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from steering_core.errors import ModelError
from steering_core.generation.intervention import Intervention, run_steered, text_positions
from steering_core.generation.steered_method import Steered, SteeredPrompt
from steering_core.methods.solutions import TEXT_KEY
from steering_core.models.devices import float64_device
from steering_core.models.head import check_head, final_hidden, logits_of, vocabulary_size
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.tokens import ROW_STEP, pad, padded_batches
from steering_core.progress import progress

log = logging.getLogger(__name__)


def text_divergence(
    lm: LanguageModel,
    generations: pd.DataFrame,
    steered: Steered,
    *,
    batch_tokens: int,
) -> pd.DataFrame:
    """Return ``kl_sum, base_nll_sum, n_tokens`` for every text; NaN and 0 where there is none.

    A text also counts as missing if its KL or surprise is not finite; the log names the strength.

    Each text is read under the intervention that it was generated under; an adaptive program is
    solved again at every position. The numbers of positions without a solution are copied from the
    generations. KL and negative log-likelihood are sums over the new tokens, in nats.

    Args:
        lm: the unsteered model.
        generations: texts of one method, a row per strength and prompt, with their token ids.
        steered: how each text was steered.
        batch_tokens: tokens of a forward pass, with padding.
    """
    frames = []
    for index in progress(steered.points(), f"divergence of {steered.method}"):
        texts = generations[generations["strength_index"] == index].reset_index(drop=True)
        made = texts["new_tokens"].notna().to_numpy(copy=True)
        counts = ["steered_positions", "unsolved_positions", "added_positions"]
        frame = texts[[*TEXT_KEY, *counts]].assign(kl_sum=np.nan, base_nll_sum=np.nan, n_tokens=0)
        if made.any():
            read = {"prepend_bos": steered.prepend_bos, "batch_tokens": batch_tokens}
            prompts, new = (
                texts.loc[made, f"{which}_tokens"].tolist() for which in ("prompt", "new")
            )
            if isinstance(steered, SteeredPrompt):
                result = prompt_divergence(
                    lm, prompts, texts.loc[made, "plain_tokens"].tolist(), new, **read
                )
            else:
                rows = steered.at(index, texts.loc[made, "example_id"].tolist())
                intervention = steered.intervention(rows)
                result = divergence(lm, prompts, new, intervention=intervention, **read)
            finite = np.isfinite(result.kl_sum) & np.isfinite(result.base_nll_sum)
            made[made] = finite
            frame.loc[made, "kl_sum"] = result.kl_sum[finite]
            frame.loc[made, "base_nll_sum"] = result.base_nll_sum[finite]
            frame.loc[made, "n_tokens"] = result.n_tokens[finite]
            if not finite.all():
                first = texts.iloc[0]
                log.warning(
                    "%s, %s %g: the KL or surprise of %d texts is not finite under steering at %s "
                    "in %s, and they count as missing: take a smaller strength, or bfloat16 or "
                    "float32 as dtype.",
                    first["method"], first["strength_name"], first["strength"], (~finite).sum(),
                    ", ".join(site.hook_name for site in steered.sites), dtype_name(lm),
                )  # fmt: skip
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Divergence:
    """Sums over the tokens of each text.

    Attributes:
        kl_sum: Σ KL(steered ‖ base), nats; NaN where steering makes hidden states or logits NaN or
            infinite, as with a vector too long for the model's dtype.
        base_nll_sum: Σ −log p_base(token), nats: the base model's surprise at the text. NaN where
            it is not finite: the base model gives a token probability 0, or overflows on it.
        n_tokens: tokens after the prompt, the end token included.
        nll_sum: Σ −log p_steered(token), nats; NaN likewise. None if it was not asked for.
    """

    kl_sum: Float[np.ndarray, " n"]
    base_nll_sum: Float[np.ndarray, " n"]
    n_tokens: Int[np.ndarray, " n"]
    nll_sum: Float[np.ndarray, " n"] | None = None


@torch.no_grad()
def divergence(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    prepend_bos: bool,
    intervention: Intervention | None,
    batch_tokens: int = 2048,
    own_surprise: bool = False,
    tick: Callable[[int], Any] = lambda n: None,
) -> Divergence:
    """Compare the steered and the base model on the same texts.

    Both models read prompt and continuation. Only positions that predict a generated token are
    compared: the last prompt token and those after it. The same positions are steered as in
    generation, each as it was there (:func:`steering_core.generation.intervention.steer`). Without
    an intervention the KL is zero by definition and only the base pass runs.

    Args:
        lm: the model.
        prompts: token ids of the prompts.
        continuations: token ids of the texts generated under steering.
        prepend_bos: whether the prompts begin with BOS.
        intervention: that the texts were generated under.
        batch_tokens: padded tokens at a time.
        own_surprise: whether to return the steered model's surprise too, for one pass more over
            the unembedding.
        tick: told how many texts more are done.

    Raises:
        ModelError: if the model does more to its logits than a known scale and a soft cap, or
            its logits are NaN or infinite on texts of the unsteered model.
    """
    rows = [[*a, *b] for a, b in zip(prompts, continuations, strict=True)]
    if rows:
        check_head(lm)
    kl, nll, own = np.zeros((3, len(rows)))
    batches = padded_batches(
        rows,
        lm.tokenizer,
        prepend_bos=prepend_bos,
        context=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    steer_prompt = intervention is not None and intervention.positions == "all"
    for chosen, padded in batches:
        batch = padded.to(lm.device)
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=lm.device)
        predicting, steered_at = text_positions(batch, last, steer_prompt)
        run = partial(final_hidden, lm, batch.ids, batch.mask)
        base, steered = run()[predicting], None
        if intervention is not None:
            steered = run_steered(lm, intervention.rows(chosen), steered_at, run)[0][predicting]
        row, column = predicting.nonzero(as_tuple=True)
        target, text = batch.ids[row, column + 1], np.array(chosen)[row.cpu().numpy()]
        kl_token, nll_token = token_divergence(lm, steered, base, target)
        np.add.at(kl, text, kl_token.cpu().numpy())
        np.add.at(nll, text, nll_token.cpu().numpy())
        if own_surprise:
            own_token = nll_token
            if steered is not None:
                _, own_token = token_divergence(lm, None, steered, target)
            np.add.at(own, text, own_token.cpu().numpy())
        tick(len(chosen))
    if intervention is None and not np.isfinite(nll).all():
        raise logits_not_finite(lm)
    kl, nll, own = (np.where(np.isfinite(sums), sums, np.nan) for sums in (kl, nll, own))
    lengths = np.array([len(row) for row in continuations], dtype=np.int64)
    return Divergence(kl, nll, lengths, own if own_surprise else None)


@torch.no_grad()
def prompt_divergence(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    plain: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    prepend_bos: bool,
    batch_tokens: int = 2048,
) -> Divergence:
    """Compare the model after a longer prompt with itself after the plain one, on the same texts.

    The KL is between the two conditionals at every generated token.

    Args:
        lm: the model.
        prompts: token ids of the longer prompts, after which the texts were generated.
        plain: token ids of the plain prompts.
        continuations: token ids of the texts.
        prepend_bos: whether both begin with BOS.
        batch_tokens: padded tokens of the longer prompts and texts at a time.

    Raises:
        ModelError: as :func:`divergence`.
    """
    sides = [
        [[*a, *b] for a, b in zip(before, continuations, strict=True)]
        for before in (prompts, plain)
    ]
    if continuations:
        check_head(lm)
    kl, nll = np.zeros((2, len(continuations)))
    padding = {"prepend_bos": prepend_bos, "context": lm.shape.context}
    batches = padded_batches(sides[0], lm.tokenizer, batch_tokens=batch_tokens, **padding)
    for chosen, padded in batches:
        shorter = pad([sides[1][i] for i in chosen], lm.tokenizer, side="right", **padding)
        hidden = []
        for batch, before in ((padded.to(lm.device), prompts), (shorter.to(lm.device), plain)):
            last = torch.tensor([len(before[i]) - 1 for i in chosen], device=lm.device)
            predicting, _ = text_positions(batch, last, steer_prompt=False)
            hidden.append(final_hidden(lm, batch.ids, batch.mask)[predicting])
        # Row by row, both sides predict the same tokens.
        row, column = predicting.nonzero(as_tuple=True)
        text = np.array(chosen)[row.cpu().numpy()]
        kl_token, nll_token = token_divergence(lm, *hidden, batch.ids[row, column + 1])
        np.add.at(kl, text, kl_token.cpu().numpy())
        np.add.at(nll, text, nll_token.cpu().numpy())
    if not np.isfinite([kl, nll]).all():
        raise logits_not_finite(lm)
    return Divergence(kl, nll, np.array([len(row) for row in continuations]))


def logits_not_finite(lm: LanguageModel) -> ModelError:
    """Return the error for a model whose logits are NaN or infinite without steering."""
    return ModelError(
        f"{lm.shape.architecture} has NaN or infinite logits without steering, in "
        f"{dtype_name(lm)}: set `dtype: bfloat16` or `float32` in the model's section."
    )


#: Positions and tokens of the vocabulary at a time. The 256k logits of a Gemma batch would take
#: gigabytes in float32. Both sizes are fixed, so that the order of the sums, and with it the last
#: digits, does not depend on the batch.
ROWS, COLUMNS = 2048, 2**14


def token_divergence(
    lm: LanguageModel,
    steered: Float[torch.Tensor, "n d_model"] | None,
    base: Float[torch.Tensor, "n d_model"],
    target: Int[torch.Tensor, " n"],
) -> tuple[Float[torch.Tensor, " n"], Float[torch.Tensor, " n"]]:
    """Return KL(steered ‖ base) and the base model's −log p(target), in nats and float64.

    Args:
        lm: the model, for its unembedding.
        steered: final hidden states under steering; None without steering, where the KL is zero.
        base: final hidden states of the base model at the same positions.
        target: the token that follows each position.
    """
    if not len(base):
        nothing = torch.zeros(0, dtype=torch.float64)
        return nothing, nothing
    parts = []
    for start in range(0, len(base), ROWS):
        rows = slice(start, start + ROWS)
        moved = None if steered is None else steered[rows]
        parts.append(_compare(lm, moved, base[rows], target[rows]))
    kl, surprise = zip(*parts, strict=True)
    return torch.cat(kl), torch.cat(surprise)


def _compare(
    lm: LanguageModel, steered: torch.Tensor | None, base: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`token_divergence`, for at most ``ROWS`` positions.

    KL = Σ p_s (s − b) + log Z_b − log Z_s with the logits s and b: one pass over each suffices.
    """
    n = len(base)
    base, steered = _filled(base), None if steered is None else _filled(steered)
    own, other = _Sums(base), _Sums(base)
    chosen = torch.empty_like(own.top[:n])
    for start in range(0, vocabulary_size(lm), COLUMNS):
        columns = slice(start, start + COLUMNS)
        logits = logits_of(lm, base, columns)
        own.add(logits)
        here = ((target >= start) & (target < start + COLUMNS)).nonzero()[:, 0]
        chosen[here.to(chosen.device)] = logits[here, target[here] - start].to(chosen)
        if steered is not None:
            moved = logits_of(lm, steered, columns)
            other.add(moved, moved - logits)
    surprise = own.log_total[:n] - chosen
    if steered is None:
        return torch.zeros_like(surprise), surprise
    return (other.mean + own.log_total - other.log_total)[:n], surprise


class _Sums:
    """Σ exp(logit) and Σ exp(logit) · value of each row, a piece at a time.

    Sums are relative to the largest logit so far (Milakov and Gimelshein 2018, Online normalizer
    calculation for softmax, algorithm 3).
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self.device = float64_device(rows.device)
        like = {"dtype": torch.float64, "device": self.device}
        self.top = torch.full((len(rows),), -torch.inf, **like)
        self.total, self.weighted = torch.zeros(2, len(rows), **like)

    def add(self, logits: torch.Tensor, values: torch.Tensor | None = None) -> None:
        """Add a piece of every row; sums within it are in float32."""
        highest = logits.amax(dim=1)
        weights = (logits - highest[:, None]).exp_()
        highest = highest.to(self.device).double()
        top = torch.maximum(self.top, highest)
        before, now = (self.top - top).exp(), (highest - top).exp()
        self.total = self.total * before + weights.sum(dim=1).to(self.device).double() * now
        if values is not None:
            piece = weights.mul_(values).sum(dim=1).to(self.device).double()
            self.weighted = self.weighted * before + piece * now
        self.top = top

    @property
    def log_total(self) -> torch.Tensor:
        """Log Σ exp(logit)."""
        return self.top + self.total.log()

    @property
    def mean(self) -> torch.Tensor:
        """Mean of the values under the softmax of the logits."""
        return self.weighted / self.total


def _filled(hidden: torch.Tensor) -> torch.Tensor:
    """Repeat the last row up to a multiple of ``ROW_STEP``."""
    return torch.cat([hidden, hidden[-1:].expand(-len(hidden) % ROW_STEP, -1)])
