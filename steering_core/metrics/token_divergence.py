"""KL and surprise of each token, from final hidden states, a piece of the vocabulary at a time.

Gemma's 256k logits of a batch would take gigabytes in float32. Here no more than ``ROWS`` ×
``COLUMNS`` of them are held for each model, and the unembedding is read once for all those rows.
"""

import torch
from jaxtyping import Float, Int

from steering_core.models.devices import float64_device
from steering_core.models.head import logits_of, vocabulary_size
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import ROW_STEP

#: Positions and tokens of the vocabulary at a time. They are not fitted to each other, so that the
#: order of the sums, and with it the digits, does not depend on the batch.
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
        steered: final hidden states under steering; None is none, whose KL is zero.
        base: those of the base model at the same positions.
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

    KL = Σ p_s (s − b) + log Z_b − log Z_s with the logits s and b: one look at each suffices.
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

    Relative to the largest logit so far, as a softmax in one pass has it (Milakov and Gimelshein
    2018, Online normalizer calculation for softmax, algorithm 3).
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
