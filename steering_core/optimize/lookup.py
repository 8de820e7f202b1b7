"""The path as a table on the model's device: a steering vector per token, without a solver."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steering_core.optimize.checks import as_number, tolerated
from steering_core.optimize.knots import FAR, LIMIT, SNAP
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import BEYOND, INACCURATE, INFEASIBLE, OPTIMAL, SATISFIED

Answer = tuple[Float[Tensor, "batch d_model"], Int[Tensor, " batch"]]


class PathLookup(torch.nn.Module):
    """Residual vectors ``Dᵀδ`` of a fitted path for batches of shortfalls.

    A query is a binary search and an interpolation between two rows. There is no loop over inputs
    and no GPU sync. Each solution is certified as the path certifies its own, from the dual values
    at the knots. Rows without a certified solution are **zero** and flagged: the second value
    returned holds indices into ``steering_core.optimize.solution.STATUSES``. They are ``optimal``,
    ``already_satisfied`` (zero is the solution), ``infeasible``, ``inaccurate`` and
    ``beyond_range`` (the path was not fitted this far: call ``path.extend`` before making the
    table). A shortfall that is NaN counts as infeasible.

    Positions are computed in float64, whatever the dtype of the vectors. Casting the module casts
    the vectors only.

    Args:
        path: a fitted path. It is copied, so later extensions have no effect.
        device: of the table.
        dtype: of the vectors.
        tolerance: a solution is ``inaccurate`` if its certified relative gap, of either sign, or
            its miss is larger.

    Raises:
        ValueError: naming ``path``, if it was not extended yet, or ``tolerance``.
    """

    def __init__(
        self,
        path: SteeringPath,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        tolerance: float = 1e-8,
    ) -> None:
        super().__init__()
        knots, self._tolerance = path.knots, tolerated(tolerance)
        if path.feasible and knots.mu.size < 2 and not path.stuck:
            raise ValueError("path has no knots yet: extend it as far as the queries will go.")
        self.feasible, self.complete = path.feasible, knots.complete
        rows = max(knots.mu.size, 2)
        # Rows per unit of s, so that no dtype overflows; the first (s = 0) has weight zero.
        scale = np.ones(rows)
        scale[: knots.s.size] = np.maximum(knots.s, np.finfo(float).tiny)
        unit = np.zeros((rows, path.d_model))
        unit[: knots.mu.size] = knots.v / scale[: knots.mu.size, None]
        unit[0] = 0.0
        self.register_buffer("vectors", torch.from_numpy(unit).to(device, dtype))
        square, cross = np.zeros(rows), np.zeros(rows - 1)
        square[: knots.mu.size], cross[: knots.cross.size] = knots.square, knots.cross
        dual = np.zeros((rows, 3))  # price, L1 and dual violation: what certifies a solution
        dual[: knots.mu.size] = np.stack([knots.mu, knots.l1, knots.violation], axis=1)
        norm = knots.norm if knots.norm.size else np.array([knots.slack_norm])
        tables = {"s": knots.s, "scale": scale, "square": square, "cross": cross, "fall": -norm}
        tables |= {"dual": dual}
        if knots.complete:
            far = knots.far_prices
            tables |= {"far_way": far.t, "far_price": far.price, "far_size": far.size}
        self._tables = {
            name: torch.from_numpy(np.ascontiguousarray(table)).to(self.vectors.device)
            for name, table in tables.items()
        }
        # Norms: slack from here on; the attainable infimum; infeasible for any dictionary.
        self._slack, self._least = knots.slack_norm, knots.least_norm
        weight = float(np.linalg.norm(path.weight))
        self._never = (1.0 - LIMIT) * max(self._least, 1.0 / weight if weight else np.inf)

    def qp(self, shortfall: Float[Tensor, " batch"], qp_lambda: float | Tensor) -> Answer:
        """``(vectors, codes)`` of QP(λ, r); a tensor of λ, one a row, is taken unchecked.

        Raises:
            ValueError: naming ``qp_lambda``, if it is a number <= 0, or ``shortfall``.
        """
        if not isinstance(qp_lambda, Tensor) and not 0 < as_number("qp_lambda", qp_lambda) < np.inf:
            raise ValueError(f"qp_lambda must be > 0 and finite, not {qp_lambda}.")
        r = _row(shortfall)
        s = r.clamp(min=0.0).nan_to_num(0.0) * qp_lambda
        beyond = s > self._tables["s"][-1] if not self.complete else torch.zeros_like(s).bool()
        return self._answer(r, s, None, ~torch.isfinite(r), beyond)

    def socp(self, shortfall: Float[Tensor, " batch"], epsilon: float | Tensor) -> Answer:
        """``(vectors, codes)`` of SOCP(ε, r); a tensor of ε, one a row, is taken unchecked.

        Raises:
            ValueError: naming ``epsilon``, if it is a number < 0, or ``shortfall``.
        """
        if not isinstance(epsilon, Tensor) and not 0 <= as_number("epsilon", epsilon) < np.inf:
            raise ValueError(f"epsilon must be >= 0 and finite, not {epsilon}.")
        r = _row(shortfall)
        norm = epsilon / r.clamp(min=np.finfo(float).tiny).nan_to_num(1.0)
        never = (norm < self._never) | ~torch.isfinite(r)
        beyond = torch.zeros_like(never)
        if not self.complete:
            beyond = ~never & (-norm > self._tables["fall"][-1])
        return self._answer(r, self._at_norm(norm), norm, never, beyond)

    def _at_norm(self, norm: Tensor) -> Tensor:
        """As ``Knots.at_norm``; some finite number where the norm is out of range."""
        t, last = self._tables, self._tables["s"].numel() - 1
        norm = norm.clamp(min=self._least)
        k = torch.searchsorted(t["fall"], -norm).clamp(max=last if self.complete else last - 1)
        k = k.clamp(min=0)
        slack, ray = norm >= self._slack, k == last
        onward = torch.where(ray, k, k + 1).clamp(max=last)
        start = t["s"][k]
        weight = torch.where(ray, 1.0, t["s"][onward])
        theta = norm**2
        b0 = (t["square"][k] - theta * start**2).clamp(min=0.0)
        b1 = t["cross"][k] - theta * start * weight
        b2 = (t["square"][k + 1] - theta * weight**2).clamp(max=0.0)
        root = (b1**2 - b0 * b2).sqrt()
        top = torch.where(b1 > 0, b1 + root, b0)
        bottom = torch.where(b1 > 0, -b2, root - b1)
        on_ray = start + torch.where(bottom > 0, top / bottom, np.inf)
        on_ray = torch.where(norm <= self._least * (1.0 + SNAP), np.inf, on_ray)
        part = torch.where(top + bottom > 0, top / (top + bottom), 1.0)
        between = start + part * (t["s"][onward] - start)
        return torch.where(slack, 0.0, torch.where(ray, on_ray, between))

    def _answer(
        self, r: Tensor, s: Tensor, norm: Tensor | None, never: Tensor, beyond: Tensor
    ) -> Answer:
        """The solutions at positions s; the SOCP also gives ``norm``, its budget per shortfall."""
        t, last = self._tables, self._tables["s"].numel() - 1
        far = torch.isinf(s)
        first = t["s"][min(1, last)].clamp(min=np.finfo(float).tiny) if last else 1.0
        inner = torch.where((s == 0) | far, first, s)
        k = torch.searchsorted(t["s"], inner, right=True) - 1
        k = k.clamp(min=0, max=last if self.complete else max(last - 1, 0))
        k = torch.where(far, last, k)
        onward, ray = (k + 1).clamp(max=last), k == last
        step = torch.where(ray, 1.0, t["s"][onward] - t["s"][k])
        right = torch.where(far, 1.0, (inner - t["s"][k]) / step / inner)
        left = torch.where(ray, 1.0, (t["s"][onward] - inner) / step) / inner
        left = torch.where(far, 0.0, left)
        known = ~(never | beyond) & (r > 0)
        if not self.feasible:
            known = torch.zeros_like(known)
        certified = self._gap(s, norm, k, left, right) <= self._tolerance
        inaccurate, known = known & ~certified, known & certified
        scale = torch.where(known, r, 0.0)
        weights = [
            torch.where(known, scale * left * t["scale"][k], 0.0),
            torch.where(known, scale * right * t["scale"][k + 1], 0.0),
        ]
        vectors = sum(
            weight.to(self.vectors.dtype)[:, None] * self.vectors[row]
            for weight, row in zip(weights, (k, k + 1), strict=True)
        )
        code = torch.where(known, OPTIMAL, torch.where(beyond & ~never, BEYOND, INFEASIBLE))
        code = torch.where(inaccurate, INACCURATE, code)
        if not self.feasible:
            code = torch.full_like(code, INFEASIBLE)
        return vectors, torch.where(r <= 0, SATISFIED, code)

    def _gap(
        self, s: Tensor, norm: Tensor | None, k: Tensor, left: Tensor, right: Tensor
    ) -> Float[Tensor, " batch"]:
        """The larger of certified relative gap and miss, as ``Solutions`` computes them.

        All values are per unit of shortfall. ``left`` and ``right`` are the weights of ``u = y/s``.
        """
        t = self._tables
        price, l1, violation = (
            left[:, None] * t["dual"][k] + right[:, None] * t["dual"][k + 1]
        ).unbind(dim=1)
        shrink = 1.0 + s * violation
        square = (
            left**2 * t["square"][k]
            + 2 * left * right * t["cross"][k]
            + right**2 * t["square"][k + 1]
        )
        if norm is None:
            value, bound = l1 + 0.5 * s * square, s * (price / shrink - 0.5 * square / shrink**2)
            return (1.0 - bound / value).abs()
        size = square.sqrt()
        bound = s * (price - norm * size) / shrink
        bound = torch.where(s == 0, t["dual"][0, 0], bound)  # a slack budget has the price 0
        if self.complete:
            far = s > FAR * t["s"][-1]
            bound = torch.where(far, self._far_bound(norm, s), bound)
        return torch.maximum((1.0 - bound / l1).abs(), size / norm - 1.0)

    def _far_bound(self, norm: Tensor, s: Tensor) -> Float[Tensor, " batch"]:
        """As ``Knots.far_price``."""
        t, last = self._tables, self._tables["s"].numel() - 1
        mu, violation = t["dual"][last, 0], t["dual"][last, 2]
        start, theta, between = t["square"][last], t["square"][last + 1], t["cross"][last]
        infinite = torch.isinf(s)
        way = torch.where(infinite, t["far_way"][-1], (s - t["s"][last]).clamp(min=0.0))
        size = (start + 2 * way * between + way**2 * theta).sqrt()
        excess = theta * (start + 2 * way * between) / (theta.sqrt() * size + way * theta)
        more = torch.where(infinite, 0.0, norm - self._least)
        own = (mu - excess - more * size) / (1.0 + violation + way * t["dual"][last + 1, 2])
        others = (t["far_price"] - more[:, None] * t["far_size"]).amax(dim=1)
        return torch.maximum(own, others)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PathLookup":
        super()._apply(fn, recurse)
        self._tables = {name: t.to(self.vectors.device) for name, t in self._tables.items()}
        return self


def _row(shortfall: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Shortfalls in float64."""
    if not isinstance(shortfall, Tensor) or shortfall.ndim != 1:
        what = getattr(shortfall, "shape", shortfall)
        raise ValueError(f"shortfall must be a tensor with one dimension, not {what}.")
    return shortfall.to(torch.float64)
