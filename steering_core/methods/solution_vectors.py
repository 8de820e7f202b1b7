"""The residual vectors that solution rows stand for, expanded on demand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steering_core.config.methods import is_program, parameter_of, program_of
from steering_core.methods.base import Direction, read_direction
from steering_core.methods.gates import Gate
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.bounds import Guards
from steering_core.storage.arrays import load_arrays, save_arrays


class MethodRows:
    """The solution rows of one method.

    Args:
        solutions: rows of one method, as :mod:`steering_core.methods.solutions` makes them.

    Raises:
        ValueError: naming ``solutions``, if they are of several methods.
    """

    def __init__(self, solutions: pd.DataFrame):
        methods = solutions["method"].unique()
        if len(methods) != 1:
            raise ValueError(f"solutions must be of one method, got {list(methods)}")
        self.method, self.rows = str(methods[0]), solutions.reset_index(drop=True)

    def points(self) -> list[int]:
        """Return the strength indices, ascending."""
        return sorted(self.rows["strength_index"].unique())

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of a strength in the order of ``example_ids``."""
        rows = self.rows[self.rows["strength_index"] == strength_index]
        return rows.set_index("example_id").loc[list(example_ids)].reset_index()


class SolutionVectors(MethodRows):
    """The vectors of the rows of a fixed direction or a registered program.

    Args:
        solutions: as :class:`MethodRows`.
        directions: the file of the fixed directions; only a fixed direction needs it.
        path: the steering path; only a program needs it.

    Raises:
        ValueError: naming the argument.

    """

    def __init__(
        self,
        solutions: pd.DataFrame,
        directions: str | Path | None = None,
        path: SteeringPath | None = None,
    ):
        super().__init__(solutions)
        self._expand: Callable[[pd.DataFrame], Float[np.ndarray, "n d_model"]]
        if is_program(self.method):
            if path is None:
                raise ValueError(f"path: {self.method} needs the steering path")
            self._expand = partial(_on_path, self.method, path)
        else:
            if directions is None:
                raise ValueError(f"directions: {self.method} needs the file of its direction")
            self._expand = partial(_along, *read_direction(directions, self.method))

    def vectors(self, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
        """Return the vector of each row; NaN if the row has no solution."""
        return self._expand(rows)

    def parameters(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Return λ or ε of each row of a program."""
        return _parameters(self.method, rows)


def _along(direction: Direction, unit: float, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
    """Return the direction at the strength of each row; ``unit`` is the norm of strength 1."""
    size = rows["strength"].to_numpy()[:, None] * unit
    return size * direction.vector[None]


def _on_path(method: str, path: SteeringPath, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
    """Return the vector on the path at the position of each row."""
    position, shortfall = rows["position"].to_numpy(), rows["shortfall"].to_numpy()
    return path.at(position, shortfall, program_of(method), _parameters(method, rows)).vector


def _parameters(method: str, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
    return rows[parameter_of(program_of(method))].to_numpy(dtype=float)


def read_solution_vectors(
    method: str,
    solutions: str | Path | Sequence[str | Path],
    directions: str | Path | None,
    path: str | Path | Sequence[str | Path] | None,
) -> SolutionVectors:
    """Read the solution rows of one method with what their vectors are made of.

    Args:
        method: its name.
        solutions: the file of its family, or the files of several families.
        directions: as :class:`SolutionVectors`.
        path: the file of the steering path, for the programs. Of several the longest is read.

    Raises:
        ValueError: as :class:`SolutionVectors`.
        StorageError: if a file is missing or damaged.

    """
    files = [solutions] if isinstance(solutions, str | Path) else [*solutions]
    rows = pd.read_parquet(files, filters=[("method", "==", method)])
    steering_path = (
        SteeringPath.load_deepest(path) if is_program(method) and path is not None else None
    )
    return SolutionVectors(rows, directions, steering_path)


class PlanRows(MethodRows):
    """The solution rows of a CorrSteer plan, and its vectors at each site.

    Args:
        solutions: rows of one plan; their ``strength`` is what the vectors are multiplied by.
        vectors: of each site that is steered.

    Raises:
        ValueError: as :class:`MethodRows`.
    """

    def __init__(
        self, solutions: pd.DataFrame, vectors: Mapping[Site, Float[np.ndarray, " d_model"]]
    ):
        super().__init__(solutions)
        self.vectors = vectors

    def moves_alone(self, site: Site) -> bool:
        """Whether only the plan's own vector at ``site`` changes the residual there."""
        return site in self.vectors and all(other.layer >= site.layer for other in self.vectors)

    def at_site(self, site: Site) -> "PlanAtSite":
        """Return the rows with the vectors that are added at one of the plan's sites."""
        return PlanAtSite(self.rows, self.vectors[site])


class PlanAtSite(MethodRows):
    """The solution rows of a plan, and the vector that it adds at one site at scale 1."""

    def __init__(self, solutions: pd.DataFrame, vector: Float[np.ndarray, "*m d_model"]):
        super().__init__(solutions)
        self._vector = vector

    def vectors(self, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
        """Return the vector of each row."""
        return rows["strength"].to_numpy()[:, None] * self._vector[None]


@dataclass(frozen=True, eq=False)
class ProgramLogit:
    """The logit that a declared program puts a margin on, and how the program is solved.

    With the decoder this is all that solving it for new residuals needs.

    Attributes:
        program: which program.
        weight: of the logit, oriented to the target class; of k logits, ``(k, d_model)``.
        bias: its bias; of k logits, ``(k,)``.
        metric: A² of the metric; None for the identity.
        cost: of each feature; None where each costs 1.
        guards: of the residual; None without guards.
        mode: which inputs share a solution; ``adaptive`` is solved again at every position.
    """

    program: Literal["qp", "socp", "dense"]
    weight: Float[np.ndarray, "*k d_model"]
    bias: float | Float[np.ndarray, " k"]
    metric: Float[np.ndarray, "d_model d_model"] | None
    cost: Float[np.ndarray, " d_sae"] | None = None
    guards: Guards | None = None
    mode: Literal["uniform", "static", "adaptive", "shared"] = "adaptive"

    @property
    def weights(self) -> Float[np.ndarray, "k d_model"]:
        """The weight of each logit, a row per direction."""
        return np.atleast_2d(self.weight)

    @property
    def biases(self) -> Float[np.ndarray, " k"]:
        """The bias of each logit."""
        return np.atleast_1d(self.bias)


class ProgramRows(PlanRows):
    """The solution rows of a declared program or a gated method, each with its own vector.

    Args:
        solutions: rows of one program.
        site: that is steered.
        vectors: the different vectors.
        index: which of them each row adds.
        logit: that the margin is on; None for what is no declared program.
        gate: where the rows act; None is everywhere.
    """

    def __init__(
        self,
        solutions: pd.DataFrame,
        site: Site,
        vectors: Float[np.ndarray, "m d_model"],
        index: Int[np.ndarray, " n"],
        logit: ProgramLogit | None = None,
        gate: Gate | None = None,
    ):
        super().__init__(solutions.assign(vector=index), {site: vectors})
        self.logit, self.gate = logit, gate

    @property
    def solved_again(self) -> bool:
        """Whether the program is solved again at every position."""
        return self.logit is not None and self.logit.mode == "adaptive"

    def at_site(self, site: Site) -> "ProgramAtSite":
        """Return the rows with the vectors that they stand for."""
        return ProgramAtSite(self.rows, self.vectors[site])

    def parameters(self, rows: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Return λ or ε of each row; of each row one is given."""
        return rows["lam"].fillna(rows["epsilon"]).to_numpy(dtype=float)


class ProgramAtSite(PlanAtSite):
    """The solution rows of a declared program, and all its vectors."""

    def vectors(self, rows: pd.DataFrame) -> Float[np.ndarray, "n d_model"]:
        """Return the vector of each row; NaN if the row has no solution."""
        return self._vector[rows["vector"].to_numpy(dtype=np.int64)]


def write_program(
    path: str | Path,
    site: Site,
    vectors: Float[np.ndarray, "m d_model"],
    index: Int[np.ndarray, " n"],
    logit: ProgramLogit | None,
    gate: Gate | None = None,
) -> None:
    """Write what :class:`ProgramRows` needs besides the rows (safetensors)."""
    arrays, metadata = {"vectors": vectors, "index": index}, {"site": site.to_dict()}
    if logit is not None:
        arrays |= {"weight": logit.weight, "bias": np.atleast_1d(logit.bias)}
        metadata |= {"program": logit.program, "mode": logit.mode}
        if logit.metric is not None:
            arrays["metric"] = logit.metric
        if logit.cost is not None:
            arrays["cost"] = logit.cost
        if logit.guards is not None:
            arrays |= {"guards": logit.guards.directions, "kappa": logit.guards.kappa}
            metadata["guards"] = list(logit.guards.names)
    if gate is not None:
        arrays |= {"gate_weight": gate.weight, "gate_bias": np.array([gate.bias])}
    save_arrays(path, arrays, metadata)


def write_plan(path: str | Path, vectors: Mapping[Site, Float[np.ndarray, " d_model"]]) -> None:
    """Write the sites and vectors of a plan (safetensors)."""
    arrays = {f"vector.{number}": vector for number, vector in enumerate(vectors.values())}
    sites = {str(number): site.to_dict() for number, site in enumerate(vectors)}
    save_arrays(path, arrays, {"sites": sites})


def read_plan(
    solutions: str | Path | Sequence[str | Path], vectors: str | Path, method: str
) -> PlanRows:
    """Read a plan, declared program or gated method: its rows among the solutions, its vectors.

    Raises:
        StorageError: if a file is missing or damaged.
    """
    files = [solutions] if isinstance(solutions, str | Path) else [*solutions]
    rows = pd.read_parquet(files, filters=[("method", "==", method)])
    arrays, metadata = load_arrays(vectors)
    if "site" in metadata:
        logit = None
        if "program" in metadata:
            weight, bias = arrays["weight"], arrays["bias"]
            guards = None
            if "guards" in metadata:
                guards = Guards.of(arrays["guards"], arrays["kappa"], metadata["guards"])
            logit = ProgramLogit(
                metadata["program"],
                weight,
                float(bias[0]) if weight.ndim == 1 else bias,
                arrays.get("metric"),
                arrays.get("cost"),
                guards,
                metadata.get("mode", "adaptive"),
            )
        site, gate = Site(**metadata["site"]), None
        if "gate_weight" in arrays:
            gate = Gate(arrays["gate_weight"], float(arrays["gate_bias"][0]))
        return ProgramRows(rows, site, arrays["vectors"], arrays["index"], logit, gate)
    at = {Site(**site): arrays[f"vector.{k}"] for k, site in metadata["sites"].items()}
    return PlanRows(rows, at)


def coefficient_share(solutions: pd.DataFrame, path: SteeringPath) -> Float[np.ndarray, " d_sae"]:
    """Return each feature's share of the summed coefficients of ``qp_optimal``; zeros if none."""
    rows = solutions[solutions["method"] == "qp_optimal"]
    rows = rows[rows["status"] == "optimal"]
    if rows.empty:
        return np.zeros(path.d_sae)
    solutions_at = path.at(
        rows["position"].to_numpy(), rows["shortfall"].to_numpy(), "qp", rows["lam"].to_numpy()
    )
    total = np.asarray(solutions_at.delta.sum(axis=0)).ravel()
    return total / total.sum()
