"""Sampling whose draws belong to the example, not to the batch."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from transformers import LogitsProcessor

from steering_core.models.devices import float64_device

#: The whole number that stands for a probability of one. Sums stay exact in float64, too.
_ONE = 2.0**52
#: How many of the most likely tokens are ordered first. They contain most nuclei of a trained
#: model, and ordering the whole vocabulary costs tens of times as much.
_FEW = 1024


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; ``temperature`` None is greedy decoding."""

    new_tokens: int = 100
    temperature: float | None = 1.0
    top_p: float = 0.9
    seed: int = 0

    def processors(
        self, example_ids: Sequence[str]
    ) -> Callable[[list[int], int], list[LogitsProcessor]]:
        """Return a function that makes the sampler of a batch from its rows and prompt length.

        Args:
            example_ids: names of all rows; they seed the draws.
        """
        temperature = self.temperature
        if temperature is None:
            return lambda chosen, prompt_length: []
        uniforms = draws(example_ids, self.new_tokens, self.seed)
        return lambda chosen, prompt_length: [
            InverseCdfSampling(uniforms[chosen], prompt_length, temperature, self.top_p)
        ]


def draws(
    example_ids: Sequence[str], new_tokens: int, seed: int
) -> Float[torch.Tensor, "n new_tokens"]:
    """Return one uniform number per example and step, from the seed and the example's name.

    Every method and strength sees the same numbers (common random numbers), so differences
    between texts come from steering, and batch size or order change nothing.
    """
    rows = [
        np.random.default_rng([seed, crc32(name.encode())]).random(new_tokens)
        for name in example_ids
    ]
    return torch.tensor(np.array(rows), dtype=torch.float64)


class FirstNotFinite(LogitsProcessor):
    """Notes at which step the largest logit of a row is first NaN or infinite.

    Then no token is the most likely one, and ``generate`` would go on with an arbitrary token. The
    notes stay on the device, so that no step waits for it; the logits are left as they are.

    Args:
        rows: of the batch.
        prompt_length: padded length of the prompts, to know the step.
        device: of the logits.
    """

    def __init__(self, rows: int, prompt_length: int, device: torch.device):
        self.prompt_length = prompt_length
        self._first = torch.full((rows,), torch.iinfo(torch.long).max, device=device)

    def __call__(
        self, input_ids: torch.Tensor, scores: Float[torch.Tensor, "batch vocab"]
    ) -> Float[torch.Tensor, "batch vocab"]:
        """Return the scores."""
        step = input_ids.shape[1] - self.prompt_length
        bad = ~torch.isfinite(scores.amax(dim=-1))
        self._first = torch.where(bad, self._first.clamp(max=step), self._first)
        return scores

    def finite(self, lengths: Sequence[int]) -> list[bool]:
        """Return whether the logits of each row were finite in its first ``lengths`` steps."""
        return [n <= first for n, first in zip(lengths, self._first.tolist(), strict=True)]


class InverseCdfSampling(LogitsProcessor):
    """Temperature and nucleus sampling by the inverse of the cumulative distribution.

    Leaves one finite logit per row, the drawn token, so that greedy decoding takes it. The
    nucleus is the smallest set of most likely tokens whose probability reaches ``top_p``
    (Holtzman et al. 2020, arXiv:1904.09751).

    Args:
        uniforms: a draw per row and step, in [0, 1).
        prompt_length: padded length of the prompts, to know the step.
        temperature: > 0.
        top_p: in (0, 1].

    """

    def __init__(
        self,
        uniforms: Float[torch.Tensor, "batch new_tokens"],
        prompt_length: int,
        temperature: float,
        top_p: float,
    ):
        self.uniforms = uniforms
        self.prompt_length = prompt_length
        self.temperature = temperature
        self.top_p = top_p

    def __call__(
        self, input_ids: torch.Tensor, scores: Float[torch.Tensor, "batch vocab"]
    ) -> Float[torch.Tensor, "batch vocab"]:
        """Return scores in which only the drawn token is finite."""
        step = input_ids.shape[1] - self.prompt_length
        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1)
        probabilities = probabilities.to(float64_device(probabilities.device))
        self.uniforms = self.uniforms.to(probabilities.device)
        token = self._drawn(probabilities, self.uniforms[:, step, None]).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    def _drawn(
        self, p: Float[torch.Tensor, "n vocab"], uniforms: Float[torch.Tensor, "n 1"]
    ) -> Int[torch.Tensor, "n 1"]:
        if self.top_p < 1 and p.shape[1] > 8 * _FEW:
            token, whole = _draw(*_most_likely(p, _FEW), uniforms, self.top_p)
            wide = (~whole).nonzero()[:, 0]
            if len(wide):
                token[wide] = self._drawn_of_all(p[wide], uniforms[wide])
            return token
        return self._drawn_of_all(p, uniforms)

    def _drawn_of_all(
        self, p: Float[torch.Tensor, "n vocab"], uniforms: Float[torch.Tensor, "n 1"]
    ) -> Int[torch.Tensor, "n 1"]:
        return _draw(*p.sort(dim=-1, descending=True, stable=True), uniforms, self.top_p)[0]


def _most_likely(
    p: Float[torch.Tensor, "n vocab"], k: int
) -> tuple[Float[torch.Tensor, "n k"], Int[torch.Tensor, "n k"]]:
    """Return the k most likely tokens; those as likely as the k-th get probability 0.

    The library decides which of several equally likely tokens are among the k, so these are not
    used.
    """
    by_index = p.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
    ordered, place = p.gather(1, by_index).sort(dim=-1, descending=True, stable=True)
    return ordered.masked_fill(ordered == ordered[:, -1:], 0.0), by_index.gather(1, place)


def _draw(
    ordered: Float[torch.Tensor, "n k"],
    tokens: Int[torch.Tensor, "n k"],
    uniforms: Float[torch.Tensor, "n 1"],
    top_p: float,
) -> tuple[Int[torch.Tensor, "n 1"], Bool[torch.Tensor, " n"]]:
    """Return the token drawn of each row, and whether the row's nucleus is among ``tokens``."""
    # On a GPU, a sum of floats depends on how it is divided; a sum of integers does not.
    sums = (ordered.double() * _ONE).long().cumsum(dim=-1)
    reach = math.ceil(top_p * _ONE)
    last = torch.searchsorted(sums, torch.full_like(sums[:, :1], reach))
    last = last.clamp(max=sums.shape[1] - 1)
    target = uniforms * sums.gather(1, last)
    place = torch.searchsorted(sums, target.long(), right=True)
    return tokens.gather(1, torch.minimum(place, last)), sums[:, -1] >= reach
