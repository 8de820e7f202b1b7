"""The solutions of one program: positions on the path, expanded to vectors on demand."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse

from steering_core.optimize.knots import FAR, Knots, Place

Program = Literal["qp", "socp"]

#: Statuses by their code. Only the lookup table returns ``beyond_range``. ``failed``: the inner
#: solver found no solution, or float64 is not accurate enough to follow the path this far.
STATUSES = (
    "optimal",
    "already_satisfied",
    "infeasible",
    "inaccurate",
    "beyond_range",
    "failed",
)
OPTIMAL, SATISFIED, INFEASIBLE, INACCURATE, BEYOND, FAILED = range(len(STATUSES))

_CHUNK = 1 << 16  # inputs certified at once


class Solutions:
    """Solutions of one program for n inputs.

    Only the shortfall r and the path position s of each input are stored; ``δ = (r/s) y(s)``.
    All other values are computed from the knots on first use. Inputs that are infeasible or
    failed have the value NaN (``l0`` is -1).

    Args:
        knots: of the path that the positions refer to.
        d_sae: number of features.
        program: ``"qp"`` or ``"socp"``.
        shortfall: r, ``(n,)``.
        position: s, ``(n,)``. QP: λr. SOCP: the s with ``‖Dᵀu(s)‖ = ε/r``, or 0 where the budget
            is slack. 0 for inputs already satisfied, NaN for inputs without a solution.
        parameter: λ or ε, ``(n,)``.
        code: index into ``STATUSES``, ``(n,)``, uint8.
    """

    def __init__(
        self,
        knots: Knots,
        d_sae: int,
        program: Program,
        shortfall: Float[np.ndarray, " n"],
        position: Float[np.ndarray, " n"],
        parameter: Float[np.ndarray, " n"],
        code: Int[np.ndarray, " n"],
    ) -> None:
        self._knots, self._d_sae, self.program = knots, d_sae, program
        self.shortfall, self.position, self.parameter = shortfall, position, parameter
        self.code = code

    def __len__(self) -> int:
        return self.shortfall.shape[0]

    @property
    def status(self) -> Shaped[np.ndarray, " n"]:
        """Status of each input as text, one of ``STATUSES``."""
        return np.array(STATUSES)[self.code]

    @property
    def solved(self) -> Bool[np.ndarray, " n"]:
        """Mask of the inputs that have a solution (a zero one included)."""
        return (self.code != INFEASIBLE) & (self.code != FAILED)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> "Solutions":
        """The solutions of some inputs."""
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            rows = [rows]
        return Solutions(
            self._knots,
            self._d_sae,
            self.program,
            self.shortfall[rows],
            self.position[rows],
            self.parameter[rows],
            self.code[rows],
        )

    @cached_property
    def l1(self) -> Float[np.ndarray, " n"]:
        """``1ᵀδ``."""
        return self._scaled(self._knots.blend("l1", self._unit))

    @cached_property
    def residual_norm(self) -> Float[np.ndarray, " n"]:
        """``‖Dᵀδ‖``."""
        return self._scaled(np.sqrt(self._knots.blend_square(self._unit)))

    @cached_property
    def l0(self) -> Int[np.ndarray, " n"]:
        """Number of coefficients of δ that are not zero; -1 without a solution."""
        out = np.where(self.code == SATISFIED, 0, -1)
        out[self._moved] = self._knots.blend_l0(self._unit)
        return out

    @cached_property
    def objective(self) -> Float[np.ndarray, " n"]:
        """``1ᵀδ + (λ/2)‖Dᵀδ‖²`` (QP) or ``1ᵀδ`` (SOCP)."""
        if self.program == "socp":
            return self.l1
        return self.l1 + 0.5 * self.parameter * self.residual_norm**2

    @property
    def dual_objective(self) -> Float[np.ndarray, " n"]:
        """A lower bound of the optimum; it accounts for the dual violation.

        The multipliers at position s are μ(s) for the margin and ν = v(s) for the residual
        vector, in both programs. With a violation ϑ, ``(μ, ν)/(1 + ϑ)`` is feasible for the dual:

            QP: μ r − ‖ν‖²/(2λ)        SOCP: μ r − ε‖ν‖

        A budget near the least attainable norm has multipliers far along the ray. The multipliers
        of a nearer point may then give a better bound: see :meth:`Knots.far_price`.
        """
        return self._filled(self._certificate[0])

    @cached_property
    def relative_gap(self) -> Float[np.ndarray, " n"]:
        """``(objective − dual_objective) / objective``, 0 for δ = 0."""
        moved = self._moved
        return self._filled(1.0 - self.dual_objective[moved] / self.objective[moved])

    @cached_property
    def miss(self) -> Float[np.ndarray, " n"]:
        """Relative error of δ in the constraints of its program.

        SOCP: by how much ``‖Dᵀδ‖`` exceeds ε. QP: distance of the position s from ``λ r``. The
        margin holds by construction.
        """
        moved = self._moved
        if self.program == "socp":
            ratio = self.residual_norm[moved] / self.parameter[moved]
            return self._filled(np.maximum(ratio - 1.0, 0.0))
        wanted = self.parameter[moved] * self.shortfall[moved]
        return self._filled(np.abs(self.position[moved] / wanted - 1.0))

    @property
    def dual_violation(self) -> Float[np.ndarray, " n"]:
        """Upper bound of ``max_i (μ a_i − (Dν)_i − 1)₊`` over the full dictionary, 0 for δ = 0.

        It belongs to the multipliers of :attr:`dual_objective`. The violation is computed at the
        two neighbouring knots and interpolated. It is convex in between, so this is a bound.
        """
        return self._filled(self._certificate[1])

    @property
    def delta(self) -> sparse.csr_array:
        """δ of every input, ``(n, d_sae)`` float64.

        A row is empty both for δ = 0 and without a solution: ``status`` tells them apart.
        """
        return self._weights() @ self._knots.coefficients(self._d_sae)

    @property
    def vector(self) -> Float[np.ndarray, "n d_model"]:
        """``Dᵀδ`` of every input, float64. Rows without a solution are NaN."""
        out = self._weights() @ self._knots.v
        out[~self.solved] = np.nan
        return out

    def expand(
        self, rows: slice | Sequence[int] | np.ndarray
    ) -> tuple[sparse.csr_array, Float[np.ndarray, "m d_model"]]:
        """``(delta, vector)`` of some inputs."""
        chosen = self[rows]
        return chosen.delta, chosen.vector

    @cached_property
    def _certificate(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Dual value and dual violation, both of the same multipliers."""
        knots, position = self._knots, self.position[self._moved]
        shortfall, parameter = self.shortfall[self._moved], self.parameter[self._moved]
        place = knots.place(np.where(np.isinf(position), knots.s[-1], position))
        violation = knots.blend("violation", place)
        margin = knots.blend("mu", place) * shortfall / (1.0 + violation)
        square = knots.blend_square(place) / (1.0 + violation) ** 2
        if self.program == "qp":
            return margin - square / (2 * parameter), violation
        value = margin - parameter * np.sqrt(square)
        far = position > FAR * knots.s[-1]
        if knots.complete and far.any():
            price, violation[far] = knots.far_price(parameter[far] / shortfall[far], position[far])
            value[far] = price * shortfall[far]
        return value, violation

    @cached_property
    def _moved(self) -> Bool[np.ndarray, " n"]:
        return self.solved & (self.code != SATISFIED)

    @property
    def _unit(self) -> Place:
        return self._knots.unit_place(self.position[self._moved])

    def _filled(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        out = np.where(self.solved, 0.0, np.nan)
        out[self._moved] = values
        return out

    def _scaled(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        return self._filled(values * self.shortfall[self._moved])

    def _weights(self) -> sparse.csr_array:
        """δ as combinations of the knots' y: ``(n, rows)`` with two entries a row at most."""
        place, moved = self._unit, np.flatnonzero(self._moved)
        scale = self.shortfall[moved]
        rows = self._knots.l0.size
        weight = np.concatenate([place.left * scale, place.right * scale])
        column = np.concatenate([place.k, np.minimum(place.k + 1, rows - 1)])
        matrix = sparse.coo_array(
            (weight, (np.concatenate([moved, moved]), column)), shape=(len(self), rows)
        ).tocsr()
        matrix.eliminate_zeros()
        return matrix


def certify(solutions: Solutions, tolerance: float) -> Solutions:
    """Set the status to ``inaccurate`` where gap or miss exceed ``tolerance``, in place."""
    code = solutions.code
    for start in range(0, code.size, _CHUNK):  # in chunks, to bound the memory
        part = slice(start, start + _CHUNK)
        found = solutions[part]
        good = (np.abs(found.relative_gap) <= tolerance) & (found.miss <= tolerance)
        code[part] = np.where((code[part] == OPTIMAL) & ~good, INACCURATE, code[part])
    return solutions
