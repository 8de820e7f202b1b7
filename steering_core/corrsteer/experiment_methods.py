"""Methods of an experiment that delivers pareto.csv, as arms of a CorrSteer experiment.

The directions and the probe were fitted on the labels of that experiment's task. Here they steer
the answers to another task's questions, at the same site of the same model.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from steering_core.config.methods import is_adaptive, is_program, mode_of, program_of
from steering_core.corrsteer.sparse_methods import Residuals, Steered, Strength
from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptivePlan, AdaptiveSolver
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.methods.base import read_direction
from steering_core.methods.programs import make_program
from steering_core.methods.solutions import SOLVED
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_decoder

#: Columns of the solutions that name a strength; ``strength`` is alpha for a fixed direction.
_PARTS = ["strength", "tau", "lam", "epsilon"]


def check_same_model(own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Make sure that both experiments fetched the same weights.

    Args:
        own: ``resources.json`` of the experiment that answers.
        other: that of the experiment whose method it is.

    Raises:
        ModelError: if the revisions differ.
    """
    revisions = own["model"]["revision"], other["model"]["revision"]
    if revisions[0] != revisions[1]:
        raise ModelError(
            f"the method was fitted on the weights {revisions[1]}, and the questions are answered "
            f"with {revisions[0]}: delete resources.json of the older of the two experiments."
        )


def chosen_point(
    solutions: pd.DataFrame, strength: str | Mapping[str, float], pareto: pd.DataFrame | None
) -> pd.Series | None:
    """Return a solution row of the strength that an arm names; None if none was selected.

    Args:
        solutions: rows of one method.
        strength: ``selected``, or the parts of a strength of the grid.
        pareto: the experiment's pareto.csv; needed for ``selected``.
    """
    points = solutions.drop_duplicates("strength_index").set_index("strength_index", drop=False)
    if isinstance(strength, str):
        if pareto is None:
            raise ValueError("pareto: a selected strength is read from pareto.csv")
        own = pareto[pareto["method"] == points["method"].iloc[0]]
        selected = own[own["selected"].eq(True)]
        if selected.empty:
            return None
        wanted = selected.iloc[0][_PARTS]
    else:
        wanted = {name.replace("alpha", "strength"): value for name, value in strength.items()}
    same = np.ones(len(points), dtype=bool)
    for name, value in dict(wanted).items():
        if pd.notna(value):
            same &= np.isclose(points[name].to_numpy(dtype=float), value)
    (place,) = np.flatnonzero(same)
    return points.iloc[place]


def experiment_strength(
    point: pd.Series,
    files: Mapping[str, str],
    *,
    site: Site,
    target_class: Literal[0, 1],
    device: torch.device,
) -> Strength:
    """Return what a method adds to rows of another task, at one strength.

    A fixed direction and a shared vector are those of the experiment. A static program is solved
    for each row at its last prompt token, an adaptive one at every position, with the experiment's
    probe and dictionary.

    Args:
        point: a solution row of the method at that strength.
        files: ``directions`` for a fixed direction; ``path``, ``probe`` and ``decoder`` for a
            program.
        site: where the experiment steers.
        target_class: that it steers to.
        device: of the model.

    Raises:
        StorageError: if a file is missing or damaged.
    """
    method = str(point["method"])
    if is_program(method):
        return _program(method, point, files, site, target_class, device)
    direction, unit = read_direction(files["directions"], method)
    vector = float(point["strength"]) * unit * direction.vector
    used = None if direction.features is None else len(direction.features)

    def steer(residuals: Residuals) -> Steered:
        n = len(residuals)
        features = None if used is None else np.full(n, used)
        return Steered(Intervention({site: RowVectors(vector)}), features, [""] * n)

    return Strength(f"alpha {point['strength']:g}", steer)


def _program(
    method: str,
    point: pd.Series,
    files: Mapping[str, str],
    site: Site,
    target_class: Literal[0, 1],
    device: torch.device,
) -> Strength:
    probe = LinearProbe.load(files["probe"]).oriented(target_class)
    path = SteeringPath.load(files["path"], load_decoder(files["decoder"]))
    tau, qp_lambda, epsilon = (float(point[name]) for name in ("tau", "lam", "epsilon"))
    kind = program_of(method)
    name, parameter = ("lambda", qp_lambda) if kind == "qp" else ("epsilon", epsilon)
    program = make_program(method, tau, qp_lambda, epsilon)

    def shortfalls(residuals: Residuals) -> Float[np.ndarray, " n"]:
        if mode_of(method) == "shared":  # solved once, for all inputs of the experiment alike
            return np.full(len(residuals), float(point["shortfall"]))
        return program.shortfalls(residuals, probe.weight_vector, probe.bias)

    def steer(residuals: Residuals) -> Steered:
        n = len(residuals)
        found = program.solve(path, shortfalls(residuals))
        solved = np.isin(found.status, SOLVED)
        reason = ["" if ok else f"program: {s}" for ok, s in zip(solved, found.status, strict=True)]
        if is_adaptive(method):
            solver = AdaptiveSolver(path, probe.weight_vector, probe.bias, kind, site, device)
            plan = AdaptivePlan(solver, np.full(n, tau), np.full(n, parameter))
            return Steered(Intervention({site: plan}), None, reason)
        vectors = np.where(solved[:, None], found.vector, np.nan)
        l0 = np.where(solved, found.l0, 0)
        return Steered(Intervention({site: RowVectors(vectors)}), l0, reason)

    return Strength(f"tau {tau:g}, {name} {parameter:g}", steer)
