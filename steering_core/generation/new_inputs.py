"""A method at one strength on inputs that its experiment has not solved.

The experiment's own prompts have solution rows. Here the same direction, plan or program acts on
other texts, at the same site of the same model: on a task's questions, or on text that has nothing
to do with the concept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped

from steering_core.config.methods import (
    LORA,
    is_adaptive,
    is_program,
    mode_of,
    parameter_of,
    program_of,
)
from steering_core.generation.adapter import read_adapter
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms, TokenSolver
from steering_core.generation.intervention import GatedRows, Intervention, Positions, RowVectors
from steering_core.generation.steered_method import program_solver
from steering_core.methods.base import read_direction
from steering_core.methods.gates import Gate
from steering_core.methods.programs import make_program
from steering_core.methods.ready_programs import ReadyProgram
from steering_core.methods.solution_vectors import ProgramLogit, ProgramRows, read_plan
from steering_core.methods.solutions import SOLVED, STRENGTH, selected_row
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_decoder

Residuals = Float[np.ndarray, "n d_model"]


@dataclass(frozen=True)
class SteeredInputs:
    """What a strength adds to n inputs.

    Attributes:
        intervention: on the inputs. One with a ``reason`` has NaN there and must be left out.
        n_features: how many features each input's vector uses, (n,); None for a method that does
            not act through features, and for an adaptive program.
        reason: why an input has no solution; empty where it has one.
        note: a caveat on all inputs; empty if there is none.
    """

    intervention: Intervention
    n_features: Int[np.ndarray, " n"] | None
    reason: list[str]
    note: str = ""


@dataclass(frozen=True)
class Strength:
    """One strength of a method, and what it adds to inputs with given last-token residuals."""

    name: str
    steer: Callable[[Residuals], SteeredInputs]


def solved_once(
    status: Shaped[np.ndarray, " n"],
    vectors: Float[np.ndarray, "n d_model"],
    l0: Float[np.ndarray, " n"] | None,
    site: Site,
    positions: Positions = "last",
    note: str = "",
) -> SteeredInputs:
    """Return what a program adds that was solved for each input at its last token.

    Args:
        status: of each solution.
        vectors: in residual-stream units; those without a solution are not used.
        l0: how many features each uses; None for a program without features.
        site: where it steers.
        positions: which positions of a prompt are steered.
        note: a caveat on all inputs.
    """
    solved = np.isin(status, SOLVED)  # a solution that missed its tolerance is none
    at = {site: RowVectors(np.where(solved[:, None], vectors, np.nan))}
    used = None if l0 is None else np.where(solved, l0, 0).astype(np.int64)
    return SteeredInputs(Intervention(at, positions), used, _reasons(status), note)


def solved_again(
    plan: RowPrograms,
    status: Shaped[np.ndarray, " n"],
    site: Site,
    positions: Positions = "last",
    note: str = "",
) -> SteeredInputs:
    """Return what a program adds that is solved again at every position.

    Args:
        plan: of the inputs.
        status: of the solutions at the last token, without which an input is left out.
        site: where it steers.
        positions: as of :func:`solved_once`.
        note: as of :func:`solved_once`.
    """
    return SteeredInputs(Intervention({site: plan}, positions), None, _reasons(status), note)


def chosen_point(
    solutions: pd.DataFrame, strength: str | Mapping[str, float], pareto: pd.DataFrame | None
) -> pd.Series | None:
    """Return a solution row of the strength that is asked for; None if none was selected.

    Args:
        solutions: rows of one method.
        strength: ``selected``, or the parts of a strength of the grid, in the units of the
            experiment.
        pareto: the experiment's pareto.csv; needed for ``selected``.

    Raises:
        ValueError: if ``selected`` is asked for without ``pareto``.
    """
    points = solutions.drop_duplicates("strength_index").set_index("strength_index", drop=False)
    if isinstance(strength, str):
        if pareto is None:
            raise ValueError("pareto: a selected strength is read from pareto.csv")
        selected = selected_row(pareto, points["method"].iloc[0])
        if selected is None:
            return None
        (place,) = _places(points, selected[[*STRENGTH]].to_dict())
        return points.iloc[place]
    absolute = {name.replace("alpha", "strength"): value for name, value in strength.items()}
    found = _places(points, absolute)
    if not found.size:  # the parts are in units of the model
        model = {k if k == "strength" else f"{k}_model": v for k, v in absolute.items()}
        found = _places(points, model)
    (place,) = found
    return points.iloc[place]


def _places(points: pd.DataFrame, wanted: Mapping[str, float]) -> Int[np.ndarray, " k"]:
    """Return the places of the strengths with the wanted parts."""
    same = np.ones(len(points), dtype=bool)
    for name, value in wanted.items():
        if pd.notna(value):
            same &= np.isclose(points[name].to_numpy(dtype=float), value)
    return np.flatnonzero(same)


def chosen_strength(
    method: str,
    strength: str | Mapping[str, float],
    files: Mapping[str, str],
    *,
    site: Site,
    target_class: Literal[0, 1],
    device: torch.device,
    positions: Positions = "last",
) -> Strength | None:
    """Return what a method adds to new inputs, at the strength that is asked for.

    Args:
        method: its name.
        strength: as of :func:`chosen_point`.
        files: as of :func:`strength_on_new_inputs`, with ``solutions``, and ``pareto`` for a
            selected strength.
        site: where the experiment steers.
        target_class: that it steers to.
        device: of the model.
        positions: which positions of a prompt are steered.

    Returns:
        None if no strength of the method is selected.

    Raises:
        StorageError: if a file is missing or damaged.
    """
    point = chosen_point(
        pd.read_parquet(files["solutions"], filters=[("method", "==", method)]),
        strength,
        pd.read_csv(files["pareto"]) if "pareto" in files else None,
    )
    if point is None:
        return None
    return strength_on_new_inputs(
        point,
        files,
        site=site,
        target_class=target_class,
        device=device,
        positions=positions,
    )


def strength_on_new_inputs(
    point: pd.Series,
    files: Mapping[str, str],
    *,
    site: Site,
    target_class: Literal[0, 1],
    device: torch.device,
    positions: Positions = "last",
) -> Strength:
    """Return what a method adds to new inputs, at one strength.

    A fixed direction, a CorrSteer plan, and a vector that all inputs of the experiment share are
    added as they are. A static program is solved for each input at its last token, an adaptive one
    at every position, with the experiment's logit and dictionary.

    Args:
        point: a solution row of the method at that strength.
        files: ``plan`` and ``solutions`` for a plan or a declared program, and ``decoder`` if it
            is solved anew; ``adapter`` and ``adapter_config`` for LoRA; ``directions`` for a fixed
            direction; ``path``, ``probe`` and ``decoder`` for a registered program.
        site: where the experiment steers.
        target_class: that it steers to.
        device: of the model.
        positions: which positions of a prompt are steered.

    Raises:
        StorageError: if a file is missing or damaged.
    """
    method = str(point["method"])
    if method == LORA:
        return _of_adapter(point, files, positions)
    if "plan" in files:
        return _of_plan(method, point, files, device, positions)
    if is_program(method):
        return _of_program(method, point, files, site, target_class, device, positions)
    direction, unit = read_direction(files["directions"], method)
    vector = float(point["strength"]) * unit * direction.vector
    used = None if direction.features is None else len(direction.features)
    return _same_for_all(f"alpha {point['strength']:g}", {site: vector}, used, positions)


def _of_adapter(point: pd.Series, files: Mapping[str, str], positions: Positions) -> Strength:
    """Return a strength of an adapter, which acts on all inputs alike."""
    adapter = read_adapter(files["adapter"], files["adapter_config"])
    scale = float(point["strength"])

    def steer(residuals: Residuals) -> SteeredInputs:
        n = len(residuals)
        acting = Intervention({}, positions, adapter.at(np.full(n, scale)))
        return SteeredInputs(acting, None, [""] * n)

    return Strength(f"scale {scale:g}", steer)


def _same_for_all(
    name: str,
    vectors: Mapping[Site, Float[np.ndarray, " d_model"]],
    n_features: int | None,
    positions: Positions,
    reason: str = "",
) -> Strength:
    """Return a strength that adds the same vectors to every input."""
    intervention = Intervention({at: RowVectors(v) for at, v in vectors.items()}, positions)

    def steer(residuals: Residuals) -> SteeredInputs:
        n = len(residuals)
        features = None if n_features is None else np.full(n, n_features)
        return SteeredInputs(intervention, features, [reason] * n)

    return Strength(name, steer)


def _of_plan(
    method: str,
    point: pd.Series,
    files: Mapping[str, str],
    device: torch.device,
    positions: Positions,
) -> Strength:
    """Return a strength of a CorrSteer plan or a declared program."""
    plan = read_plan(files["solutions"], files["plan"], method)
    name = f"{point['strength_name']} {point['strength']:g}"
    used = None if pd.isna(point["l0"]) else int(point["l0"])
    if not isinstance(plan, ProgramRows):
        scale = float(point["strength"])
        scaled = {site: scale * vector for site, vector in plan.vectors.items()}
        return _same_for_all(name, scaled, used, positions)
    found = _of_rows(name, plan, point, files, used, device, positions)
    return found if plan.gate is None else _gated(found, plan.gate)


def _gated(found: Strength, gate: Gate) -> Strength:
    """Return a strength that acts only where a gate is open."""

    def steer(residuals: Residuals) -> SteeredInputs:
        inputs, n = found.steer(residuals), len(residuals)
        at = inputs.intervention.at
        shut = {site: GatedRows(plan, gate, site, n) for site, plan in at.items()}
        return replace(inputs, intervention=Intervention(shut, inputs.intervention.positions))

    return Strength(found.name, steer)


def _of_rows(
    name: str,
    plan: ProgramRows,
    point: pd.Series,
    files: Mapping[str, str],
    used: int | None,
    device: torch.device,
    positions: Positions,
) -> Strength:
    """Return a strength of a declared program, or of what is behind a gate."""
    ((site, vectors),) = plan.vectors.items()
    rows = plan.rows[plan.rows["strength_index"] == point["strength_index"]]
    index, *others = rows["vector"].unique()
    if not others:  # one margin for all inputs, or the vector that all share
        status = str(point["status"])
        reason = "" if status in SOLVED else f"program: {status}"
        return _same_for_all(name, {site: vectors[int(index)]}, used, positions, reason)
    if plan.logit is None:  # nothing to solve with
        reason = "solved for the inputs of the experiment alone"
        return _same_for_all(name, {site: vectors[int(index)]}, used, positions, reason)
    decoder = load_decoder(files["decoder"])
    return _of_declared(name, plan.logit, point, decoder, site, device, positions)


def _of_declared(
    name: str,
    logit: ProgramLogit,
    point: pd.Series,
    decoder: Float[np.ndarray, "d_sae d_model"],
    site: Site,
    device: torch.device,
    positions: Positions,
) -> Strength:
    """Return a strength of a declared program that is solved for each input or position."""
    ready, tau = ReadyProgram.of(logit, decoder), float(point["tau"])
    solver = None
    if logit.mode == "adaptive":
        solver = program_solver(logit, ready.inside, site, device, ready.path)
    parameter = None if logit.program == "dense" else float(point[parameter_of(logit.program)])
    return program_strength(name, ready, tau, parameter, site, solver=solver, positions=positions)


def program_strength(
    name: str,
    ready: ReadyProgram,
    tau: float,
    parameter: float | None,
    site: Site,
    *,
    solver: TokenSolver | None = None,
    positions: Positions = "last",
    shared_by: Float[np.ndarray, "m k"] | None = None,
    note: str = "",
) -> Strength:
    """Return a strength of a declared program, which is solved for inputs as its mode says.

    Args:
        name: of the strength.
        ready: the program.
        tau: margin, logits.
        parameter: λ of a QP, ε of an SOCP; None for ``dense``.
        site: where it steers.
        solver: of an adaptive program; None for the others.
        positions: which positions of a prompt are steered.
        shared_by: as of :meth:`steering_core.methods.ready_programs.ReadyProgram.shortfalls`.
        note: a caveat on all inputs.
    """
    kind = ready.logit.program
    sizes = {"qp": {"qp_lambda": parameter}, "socp": {"epsilon": parameter}}.get(kind, {})

    def steer(residuals: Residuals) -> SteeredInputs:
        shortfall = ready.shortfalls(ready.logits(residuals), tau, shared_by)
        found = ready.solve(shortfall, **sizes)
        status = found.columns["status"]
        if solver is not None:
            plan = RowPrograms.alike(len(status), solver, tau, parameter)
            return solved_again(plan, status, site, positions, note)
        used = None if kind == "dense" else found.columns["l0"]
        return solved_once(status, found.vectors, used, site, positions, note)

    return Strength(name, steer)


def _of_program(
    method: str,
    point: pd.Series,
    files: Mapping[str, str],
    site: Site,
    target_class: Literal[0, 1],
    device: torch.device,
    positions: Positions,
) -> Strength:
    """Return a strength of a registered program."""
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

    def steer(residuals: Residuals) -> SteeredInputs:
        found = program.solve(path, shortfalls(residuals))
        if is_adaptive(method):
            solver = AdaptiveSolver(path, probe.weight_vector, probe.bias, kind, site, device)
            plan = RowPrograms.alike(len(residuals), solver, tau, parameter)
            return solved_again(plan, found.status, site, positions)
        return solved_once(found.status, found.vector, found.l0, site, positions)

    return Strength(f"tau {tau:g}, {name} {parameter:g}", steer)


def _reasons(statuses: np.ndarray) -> list[str]:
    return ["" if status in SOLVED else f"program: {status}" for status in statuses]
