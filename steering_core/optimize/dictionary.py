"""The decoder as the optimiser sees it: float64 rows on one device."""

import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from steering_core.optimize.checks import as_float64

_BLOCK = 256  # rows compared or digested at once
_EQUAL = 1e-12  # rows whose relative distance is below this count as equal


class Dictionary:
    """Decoder rows ``(d_sae, d_model)`` in float64 with the products the solvers need.

    Only this class knows about devices: products with the whole dictionary run on ``device``,
    their arguments and results are numpy arrays. The rows are a copy, so later changes of the
    caller's array have no effect.

    The L1 cost of every program is on the coefficients of the rows *as given*. Rows are not
    normalised here; a caller who wants equal norms passes such rows.

    Args:
        decoder: numpy array or torch tensor, a row per feature.
        device: where the products run, e.g. ``"cpu"`` or ``"cuda"``.
        name: name of the argument in error messages.

    Attributes:
        norms: Euclidean norm of each row, ``(d_sae,)``.

    Raises:
        ValueError: naming ``decoder`` (or ``name``), if it is not a finite matrix.
    """

    def __init__(
        self, decoder: Any, device: str | torch.device = "cpu", name: str = "decoder"
    ) -> None:
        self.device = torch.device(device)
        host = as_float64(name, decoder, 2)
        if _shared(host, decoder):
            host = host.copy()
        self._rows = torch.from_numpy(host).to(self.device)
        self.norms: Float[np.ndarray, " d_sae"] = (
            torch.linalg.vector_norm(self._rows, dim=1).cpu().numpy()
        )

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self._rows.shape[0]

    @property
    def d_model(self) -> int:
        """Length of a row."""
        return self._rows.shape[1]

    def rows(self, index: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d_model"]:
        """The rows ``index``, copied to the host."""
        return self._rows[torch.as_tensor(index, device=self.device)].cpu().numpy()

    def price(self, vectors: Float[np.ndarray, "... d_model"]) -> Float[np.ndarray, "d_sae ..."]:
        """``D @ vectors.T``: the product of every row with one or several vectors."""
        right = torch.from_numpy(np.ascontiguousarray(vectors)).to(self.device)
        return (self._rows @ right.T if right.ndim == 2 else self._rows @ right).cpu().numpy()

    def distinct(self) -> Int[np.ndarray, " m"]:
        """Sorted indices of the distinct non-zero rows; of equal rows the first.

        Leaving out equal and zero rows changes no optimum. Rows whose distance is below ``1e-12``
        of their length count as equal; the certificate of a solution shows this difference as
        dual violation.
        """
        alive = np.flatnonzero(self.norms > 0)
        norms = self.norms[alive]
        key = self.price(np.random.default_rng(0).standard_normal(self.d_model))[alive] / norms
        keep = np.ones(alive.size, dtype=bool)
        # Equal rows have equal projections and lengths: compare rows only within such runs.
        for alike in _runs(np.arange(alive.size), key, 10.0 * _EQUAL):
            for run in _runs(alike, np.log(norms[alike]), 2.0 * _EQUAL):
                self._drop_equal(alive, np.sort(run), keep)
        return alive[keep]

    def _drop_equal(
        self, alive: Int[np.ndarray, " a"], run: Int[np.ndarray, " m"], keep: Bool[np.ndarray, " a"]
    ) -> None:
        rows, left = self.rows(alive[run]), np.ones(run.size, dtype=bool)
        for i in range(run.size):
            if left[i]:
                distance = np.linalg.norm(rows[i + 1 :] - rows[i], axis=1)
                left[i + 1 :] &= distance > _EQUAL * self.norms[alive[run[i]]]
        keep[run[~left]] = False

    def holds(self, decoder: Any) -> bool:
        """Whether ``decoder``, numpy or torch of any real type, has the same values."""
        if tuple(decoder.shape) != tuple(self._rows.shape) or not _real(decoder):
            return False
        starts = range(0, self.d_sae, _BLOCK)
        return all(
            torch.equal(_float64(decoder[i : i + _BLOCK], self.device), self._rows[i : i + _BLOCK])
            for i in starts
        )

    def digest(self) -> str:
        """SHA-256 of shape and float64 values, the same for equal decoders of any dtype."""
        sha = hashlib.sha256(repr(tuple(self._rows.shape)).encode())
        for start in range(0, self.d_sae, _BLOCK):
            sha.update(self._rows[start : start + _BLOCK].cpu().numpy() + 0.0)
        return sha.hexdigest()


def _real(array: Any) -> bool:
    if isinstance(array, torch.Tensor):
        return not array.is_complex()
    return array.dtype.kind in "fiub"


def _float64(rows: Any, device: torch.device) -> Float[torch.Tensor, "m d_model"]:
    if not isinstance(rows, torch.Tensor):
        rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float64))
    return rows.detach().to(device, torch.float64)


def vector_digest(vector: Float[np.ndarray, " d"]) -> str:
    """SHA-256 of a float64 vector."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype=np.float64) + 0.0).hexdigest()


def _shared(host: Float[np.ndarray, "d_sae d_model"], given: Any) -> bool:
    """Whether ``host`` shares, or may share, memory with the caller's array."""
    if isinstance(given, torch.Tensor):
        return host.ctypes.data == given.data_ptr()
    if isinstance(given, np.ndarray):
        return np.may_share_memory(host, given)
    return not host.flags.owndata


def _runs(
    index: Int[np.ndarray, " m"], key: Float[np.ndarray, " m"], gap: float
) -> list[Int[np.ndarray, " r"]]:
    """``index`` split where the sorted ``key`` jumps by more than ``gap``, without runs of one."""
    order = np.argsort(key, kind="stable")
    runs = np.split(index[order], np.flatnonzero(np.diff(key[order]) > gap) + 1)
    return [run for run in runs if run.size > 1]
