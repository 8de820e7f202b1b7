"""The Fisher information of what is added at a site: streaming sums, shrinkage, standard error.

Let a vector v be added to the residual stream wherever an intervention steers. The KL divergence of
the steered from the unsteered model, per token of a text, is ``½ vᵀFv`` up to third order in v,
with F the Fisher information of v: the mean over texts of the information per token. Of one text it
is ``E[g gᵀ] / n``: g is the gradient, with respect to v, of Σ log p over n tokens drawn from the
model's own predictions (Amari and Nagaoka, Methods of Information Geometry, 2000, chapter 2).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from steering_core.errors import DataError
from steering_core.storage.arrays import load_arrays, save_arrays


@dataclass
class FisherSums:
    """Sums over texts, from which F follows. Sums of disjoint sets of texts can be merged.

    Texts are counted in two halves, in turn, so that two estimates can be compared.

    Attributes:
        information: of each half, the sum of the information per token of its texts.
        texts: in each half.
        squares: sum over texts of the squared Frobenius norm of the information per token.
        squared_traces: sum over texts of its squared trace.
        tokens: of all texts.
    """

    information: Float[np.ndarray, "2 d_model d_model"]
    texts: Int[np.ndarray, " 2"]
    squares: float = 0.0
    squared_traces: float = 0.0
    tokens: int = 0

    @classmethod
    def empty(cls, d_model: int) -> "FisherSums":
        """Return the sums over no text, in a residual stream of this width."""
        return cls(np.zeros((2, d_model, d_model)), np.zeros(2, dtype=np.int64))

    def add(self, gradients: Float[np.ndarray, "draws d_model"], tokens: int) -> None:
        """Add a text.

        Args:
            gradients: g of each draw of its tokens.
            tokens: n, the number of tokens of a draw.
        """
        g = gradients.astype(np.float64) / np.sqrt(tokens * len(gradients))
        half = int(self.texts.sum()) % 2
        self.information[half] += g.T @ g
        self.texts[half] += 1
        self.squares += float(((g @ g.T) ** 2).sum())  # ‖gᵀg‖² = ‖g gᵀ‖²
        self.squared_traces += float((g**2).sum()) ** 2
        self.tokens += tokens

    def merge(self, other: "FisherSums") -> "FisherSums":
        """Return the sums over the texts of both."""
        return FisherSums(
            self.information + other.information,
            self.texts + other.texts,
            self.squares + other.squares,
            self.squared_traces + other.squared_traces,
            self.tokens + other.tokens,
        )

    def fisher(self, shrinkage: float | Literal["auto"] = "auto") -> "Fisher":
        """Return ``(1 − ρ) F + ρ (tr F / d) I`` and its standard error.

        Args:
            shrinkage: ρ in (0, 1]. ``auto`` is the one with the least expected squared error,
                estimated as Ledoit and Wolf (2004) do, with texts as the samples.

        Raises:
            DataError: if there are fewer than two texts in each half, or no gradient.
        """
        n, d = int(self.texts.sum()), self.information.shape[1]
        if self.texts.min() < 2:
            raise DataError(f"{n} texts are too few to estimate the Fisher information: add texts")
        mean = self.information.sum(axis=0) / n
        trace = float(np.trace(mean))
        if not trace > 0:
            raise DataError("nothing that is added at the site changes the model's predictions")
        target = np.eye(d) * (trace / d)
        # What is left of the mean's squared error, as for any mean: Σ‖M − F‖² / (n (n − 1)).
        variance = max(self.squares - n * float((mean**2).sum()), 0.0) / (n * (n - 1))
        if shrinkage == "auto":
            apart = float(((mean - target) ** 2).sum())
            rho = 1.0 if apart <= variance else max(variance * (n - 1) / n / apart, _LEAST)
        else:
            rho = shrinkage
        halves = self.information / self.texts[:, None, None]
        trace_variance = max(self.squared_traces - n * trace**2, 0.0) / (n * (n - 1))
        size = float(np.linalg.norm(mean))
        return Fisher(
            matrix=(1 - rho) * mean + rho * target,
            shrinkage=float(rho),
            texts=n,
            tokens=self.tokens,
            trace=trace,
            trace_error=float(np.sqrt(trace_variance)) / trace,
            relative_error=float(np.sqrt(variance)) / size,
            half_difference=float(np.linalg.norm(halves[0] - halves[1])) / (2 * size),
        )


#: Without any shrinkage a matrix of few texts has directions that cost nothing.
_LEAST = 1e-4


@dataclass(frozen=True, eq=False)
class Fisher:
    """An estimate of F.

    Attributes:
        matrix: F after shrinkage, nats per token for a vector of residual-stream units:
            ``½ vᵀFv`` is the KL per token.
        shrinkage: ρ.
        texts, tokens: that it rests on.
        trace: of F.
        trace_error: standard error of the trace, relative to it: of the KL of a random direction.
        relative_error: standard error of F before shrinkage, in the Frobenius norm, relative to F.
        half_difference: half the distance of the estimates from either half of the texts, relative
            to F; about ``relative_error``, since each half has half of the texts.
    """

    matrix: Float[np.ndarray, "d_model d_model"]
    shrinkage: float
    texts: int
    tokens: int
    trace: float
    trace_error: float
    relative_error: float
    half_difference: float

    @property
    def metric(self) -> Float[np.ndarray, "d_model d_model"]:
        """``A² = F``, scaled to a mean eigenvalue of 1, so that λ and ε are comparable."""
        return self.matrix * (len(self.matrix) / np.trace(self.matrix))

    def feature_cost(
        self, decoder: Float[np.ndarray, "d_sae d_model"]
    ) -> Float[np.ndarray, " d_sae"]:
        """Return ``√(dᵢᵀF dᵢ)`` of each decoder row, scaled to a mean of 1.

        A row of zeros, which no program uses, costs 1 and does not count for the mean.

        Raises:
            ValueError: if all rows are zero.
        """
        rows = decoder.astype(np.float64)
        cost = np.sqrt(np.maximum(((rows @ self.matrix) * rows).sum(axis=1), 0.0))
        live = cost > 0
        if not live.any():
            raise ValueError("decoder: all rows are zero")
        return np.where(live, cost / cost[live].mean(), 1.0)

    def kl(self, vectors: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, " n"]:
        """Return ``½ vᵀFv``, the KL per token of each vector to second order, in nats."""
        return 0.5 * np.einsum("ni,ij,nj->n", vectors, self.matrix, vectors)

    def save(self, path: str | Path) -> None:
        """Write the estimate (safetensors); what it rests on is in the metadata."""
        save_arrays(path, {"matrix": self.matrix}, self.report())

    def report(self) -> dict[str, float]:
        """Return all numbers but the matrix."""
        return {name: value for name, value in vars(self).items() if name != "matrix"}

    @classmethod
    def load(cls, path: str | Path) -> "Fisher":
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: if the file is missing or damaged.
        """
        arrays, metadata = load_arrays(path)
        return cls(matrix=arrays["matrix"], **metadata)
