"""Accumulators of one layer and variant, and of all of them together."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from jaxtyping import Bool, Float

from steering_core.corrsteer.variant import Variant
from steering_core.statistics.correlation import StreamingCorrelation
from steering_core.statistics.histogram import StreamingHistogram

if TYPE_CHECKING:  # what merges sums needs no model
    from steering_core.corrsteer.capture import Captured

Key = tuple[int, Variant]


class Accumulator:
    """Correlation moments, and a histogram where mutual information is asked for."""

    def __init__(self, n_features: int, variant: Variant, *, histogram: bool):
        self.variant = variant
        self.correlation = StreamingCorrelation(n_features)
        self.histogram = (
            StreamingHistogram(n_features, signed=variant.space == "raw") if histogram else None
        )

    def update(self, values: Float[torch.Tensor, "n f"], success: Bool[np.ndarray, " n"]) -> None:
        """Add samples; features as the sparse numbers they are, raw dimensions densely."""
        labels = success.astype(np.float64)
        if self.variant.space == "features" or self.histogram is not None:
            csr = to_csr(values)
        if self.variant.space == "features":
            self.correlation.update_sparse(*csr, labels)
        else:
            self.correlation.update_dense(values.cpu().double().numpy(), labels)
        if self.histogram is not None:
            self.histogram.update_sparse(*csr, labels)

    def merge(self, other: "Accumulator") -> None:
        """Add everything ``other`` has seen."""
        self.correlation.merge(other.correlation)
        if self.histogram is not None and other.histogram is not None:
            self.histogram.merge(other.histogram)


class Accumulators:
    """An :class:`Accumulator` for every layer and variant; memory does not grow with samples.

    Args:
        sizes: number of features of every layer and variant.
        histograms: variants whose mutual information is asked for.
    """

    def __init__(self, sizes: Mapping[Key, int], histograms: Iterable[Variant] = ()):
        wanted = set(histograms)
        self.parts = {
            (layer, variant): Accumulator(size, variant, histogram=variant in wanted)
            for (layer, variant), size in sorted(sizes.items())
        }
        self.n = 0

    @property
    def layers(self) -> list[int]:
        """Layers, in order."""
        return sorted({layer for layer, _ in self.parts})

    def update(self, captured: "Captured", success: Bool[np.ndarray, " n"]) -> None:
        """Add a batch; rows of ``captured`` beyond those of ``success`` are filling."""
        for (layer, variant), part in self.parts.items():
            part.update(captured.values(layer, variant)[: len(success)], success)
        self.n += len(success)

    def merge(self, other: "Accumulators") -> None:
        """Add what another shard has seen.

        Raises:
            ValueError: if it accumulated something else.
        """
        if other.parts.keys() != self.parts.keys():
            raise ValueError("the shards accumulated different layers or variants.")
        for key, part in self.parts.items():
            part.merge(other.parts[key])
        self.n += other.n

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the whole state for :func:`steering_core.storage.arrays.save_arrays`."""
        arrays = {"n": np.array([self.n])}
        for (layer, variant), part in self.parts.items():
            name = f"{layer}.{variant}"
            for field, array in part.correlation.to_arrays().items():
                arrays[f"{name}.correlation.{field}"] = array
            if part.histogram is not None:
                for field, array in part.histogram.to_arrays().items():
                    arrays[f"{name}.histogram.{field}"] = array
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild from :meth:`to_arrays`."""
        grouped: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
        for name, array in arrays.items():
            if name != "n":
                layer, variant, kind, field = name.split(".")
                grouped.setdefault((layer, variant), {}).setdefault(kind, {})[field] = array
        made = cls({})
        for (layer, name), kinds in grouped.items():
            variant = Variant.parse(name)
            part = Accumulator(1, variant, histogram=False)
            part.correlation = StreamingCorrelation.from_arrays(kinds["correlation"])
            if "histogram" in kinds:
                part.histogram = StreamingHistogram.from_arrays(kinds["histogram"])
            made.parts[int(layer), variant] = part
        made.parts = dict(sorted(made.parts.items()))
        made.n = int(arrays["n"][0])
        return made


def to_csr(values: Float[torch.Tensor, "n f"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(row_indptr, indices, values)`` of what is not zero; only that leaves the device."""
    if values.device.type == "cpu":  # five times as fast as torch is there
        dense = values.numpy()
        rows, columns = np.divmod(np.flatnonzero(dense != 0), dense.shape[1])
        numbers = dense[rows, columns]
    else:
        where = values.nonzero()
        numbers = values[where[:, 0], where[:, 1]].cpu().numpy()
        rows, columns = where.cpu().numpy().T
    counts = np.bincount(rows, minlength=len(values))
    return np.concatenate([[0], np.cumsum(counts)]), columns, numbers
