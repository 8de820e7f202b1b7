"""A LoRA adapter that acts on a batch, each row at a scale of its own.

An adapter adds ``s · (α/r) · B A x`` to what a linear module makes of its input x (Hu et al. 2021,
arXiv:2106.09685). peft trains it and stores it, and scales it for a whole batch. Here rows of one
batch have different scales s, as rows of other methods have different strengths.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from steering_core.errors import ModelError, StorageError
from steering_core.models.language_model import LanguageModel, removed_after
from steering_core.storage.arrays import load_arrays
from steering_core.storage.files import read_json

#: In front of the names of the model's modules in peft's files.
_PREFIX = "base_model.model."
_ENDS = (".lora_A.weight", ".lora_B.weight")

Pair = tuple[Float[np.ndarray, "r inputs"], Float[np.ndarray, "outputs r"]]


@dataclass(frozen=True, eq=False)
class Adapter:
    """The weights of a LoRA adapter.

    Attributes:
        pairs: A and B of each module, by the module's name in the model.
        scaling: α/r.
    """

    pairs: Mapping[str, Pair]
    scaling: float

    def at(self, scales: Float[np.ndarray, " n"]) -> "ScaledAdapter":
        """Return the adapter on n rows, each at its scale."""
        return ScaledAdapter(self, np.asarray(scales, dtype=np.float64))


def read_adapter(weights: str | Path, config: str | Path) -> Adapter:
    """Read an adapter as peft stores it: ``adapter_model.safetensors`` and ``adapter_config.json``.

    Raises:
        StorageError: if a file is missing or damaged, or a module lacks one of its two matrices.
    """
    arrays, _ = load_arrays(weights)
    known = read_json(config)
    first, second = (
        {
            name.removeprefix(_PREFIX).removesuffix(end): a
            for name, a in arrays.items()
            if name.endswith(end)
        }
        for end in _ENDS
    )
    if not first or first.keys() != second.keys() or len(arrays) != 2 * len(first):
        raise StorageError(f"{weights} is no LoRA adapter of two matrices a module: delete it.")
    pairs = {name: (first[name], second[name]) for name in sorted(first)}
    return Adapter(pairs, float(known["lora_alpha"]) / float(known["r"]))


@dataclass(frozen=True, eq=False)
class ScaledAdapter:
    """An adapter on n rows, each at a scale.

    Attributes:
        adapter: its weights.
        scales: s of each row; 0 leaves a row's model as it is.
    """

    adapter: Adapter
    scales: Float[np.ndarray, " n"]

    def rows(self, chosen: Sequence[int]) -> "ScaledAdapter":
        """Return the adapter on the rows ``chosen``."""
        return ScaledAdapter(self.adapter, self.scales[chosen])

    @contextmanager
    def acting(self, lm: LanguageModel) -> Iterator[None]:
        """Add the adapter's output to its modules inside the block, each row at its own scale.

        Raises:
            ModelError: if the model lacks a module of the adapter.
        """
        with ExitStack() as stack:
            for name, pair in self.adapter.pairs.items():
                module = module_named(lm, name)
                edit = _Edit(name, pair, self.adapter.scaling * self.scales)
                stack.enter_context(removed_after(module.register_forward_hook(edit)))
            yield


def module_named(lm: LanguageModel, name: str) -> torch.nn.Module:
    """Return a module of the model by its name.

    Raises:
        ModelError: if there is none.
    """
    try:
        return lm.model.get_submodule(name)
    except AttributeError as error:
        raise ModelError(
            f"the adapter changes {name}, which the model does not have: it belongs to another "
            "model."
        ) from error


@dataclass(eq=False)
class _Edit:
    """Adds what the adapter makes of a module's input, in float32 as peft does in training."""

    name: str
    pair: Pair
    factors: Float[np.ndarray, " n"]
    _ready: tuple[torch.Tensor, ...] = field(default=(), init=False)

    def __call__(self, module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        x = args[0]
        if x.ndim != 3 or len(x) < len(self.factors):
            raise ModelError(
                f"{self.name} reads {tuple(x.shape)}, not a row for each of {len(self.factors)} "
                "texts, so an adapter cannot act on it row by row: name other lora.modules."
            )
        if not self._ready:
            rest = np.zeros(len(x) - len(self.factors))  # rows that fill a batch up
            arrays = (*self.pair, np.concatenate([self.factors, rest]))
            self._ready = tuple(
                torch.as_tensor(a, dtype=torch.float32, device=x.device) for a in arrays
            )
        inner, outer, factors = self._ready
        added = (x.float() @ inner.T @ outer.T) * factors[:, None, None]
        return output + added.to(output.dtype)
