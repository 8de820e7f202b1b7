"""The solution rows of a method, and the interventions that they stand for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from steering_core.config.methods import LORA, PROMPTING, is_adaptive, program_of
from steering_core.data.concept import read_concept
from steering_core.generation.adapter import Adapter, read_adapter
from steering_core.generation.adaptive import (
    AdaptiveSolver,
    MarginsSolver,
    RowPrograms,
    TokenSolver,
)
from steering_core.generation.intervention import GatedRows, Intervention, Positions, RowVectors
from steering_core.methods.solution_vectors import (
    PlanRows,
    ProgramLogit,
    ProgramRows,
    SolutionVectors,
    read_plan,
    read_solution_vectors,
)
from steering_core.models.site import Site
from steering_core.optimize.dictionary import Dictionary
from steering_core.optimize.guarded import GuardedProgram
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.substitution import Substitution, substitute
from steering_core.optimize.working_set.solver import WorkingSet
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_decoder


class SteeredMethod:
    """A method at a site, with a row for each grid point and input.

    Args:
        solutions: the rows, and the vectors that they stand for.
        site: where to steer.
        positions: which prompt positions are steered besides every new token.
        solver: of the program, for an adaptive method.

    Raises:
        ValueError: naming ``solver``, if an adaptive method comes without one.
    """

    def __init__(
        self,
        solutions: SolutionVectors,
        site: Site,
        positions: Positions = "last",
        solver: AdaptiveSolver | None = None,
    ):
        self.method = solutions.method
        self.sites = [site]
        self.positions: Positions = positions
        self._solutions, self._solver = solutions, solver
        if is_adaptive(self.method) and solver is None:
            raise ValueError(f"solver: {self.method} is solved again at every position")

    @property
    def prepend_bos(self) -> bool:
        """Whether prompts begin with BOS where the method steers."""
        return self.sites[0].prepend_bos

    def points(self) -> list[int]:
        """Return the strength indices, ascending."""
        return self._solutions.points()

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of a grid point in the order of ``example_ids``."""
        return self._solutions.at(strength_index, example_ids)

    def intervention(self, rows: pd.DataFrame) -> Intervention | None:
        """Return the intervention on rows that have a solution; None if it adds nothing to any."""
        site = self.sites[0]
        if is_adaptive(self.method) and self._solver is not None:
            tau, parameter = rows["tau"].to_numpy(dtype=float), self._solutions.parameters(rows)
            return Intervention({site: RowPrograms(self._solver, tau, parameter)}, self.positions)
        vectors = self._solutions.vectors(rows)
        if not np.any(vectors):
            return None
        return Intervention({site: RowVectors(vectors)}, self.positions)


class SteeredPlan:
    """A CorrSteer plan, declared program or gated method: a row for each strength and input.

    Args:
        plan: the rows, and the vectors at each site.
        prepend_bos: whether prompts begin with BOS.
        positions: which prompt positions are steered besides every new token.
        solver: of a declared program that is solved again at every position.
    """

    def __init__(
        self,
        plan: PlanRows,
        prepend_bos: bool,
        positions: Positions,
        solver: TokenSolver | None = None,
    ):
        self.method = plan.method
        self.sites = list(plan.vectors)
        self.prepend_bos = prepend_bos
        self._plan, self._positions, self._solver = plan, positions, solver

    def points(self) -> list[int]:
        """Return the strength indices, ascending."""
        return self._plan.points()

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of a scale in the order of ``example_ids``."""
        return self._plan.at(strength_index, example_ids)

    def intervention(self, rows: pd.DataFrame) -> Intervention | None:
        """Return the intervention on the rows, each at its strength."""
        at: dict[Site, RowVectors | RowPrograms | GatedRows] = {}
        for site in self.sites:
            if self._solver is not None and isinstance(self._plan, ProgramRows):
                tau, parameter = rows["tau"].to_numpy(dtype=float), self._plan.parameters(rows)
                at[site] = RowPrograms(self._solver, tau, parameter)
            else:
                at[site] = RowVectors(self._plan.at_site(site).vectors(rows))
            if isinstance(self._plan, ProgramRows) and self._plan.gate is not None:
                at[site] = GatedRows(at[site], self._plan.gate, site, len(rows))
        return Intervention(at, self._positions)


class SteeredPrompt:
    """A text that is put before every prompt. Nothing is added to the residual stream.

    Args:
        rows: a row per input.
        prefix: the text.
        prepend_bos: whether prompts begin with BOS.
    """

    def __init__(self, rows: PlanRows, prefix: str, prepend_bos: bool):
        self.method, self.prefix, self.prepend_bos = rows.method, prefix, prepend_bos
        self.sites: list[Site] = []
        self._rows = rows

    def points(self) -> list[int]:
        """Return the one strength index."""
        return self._rows.points()

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows in the order of ``example_ids``."""
        return self._rows.at(strength_index, example_ids)

    def intervention(self, rows: pd.DataFrame) -> Intervention | None:
        """Return None: the residual stream is left alone."""
        return None


class SteeredWeights:
    """An adapter that changes the weights, at some scales.

    Args:
        rows: a row for each scale and input.
        adapter: its weights.
        prepend_bos: whether prompts begin with BOS.
    """

    def __init__(self, rows: PlanRows, adapter: Adapter, prepend_bos: bool):
        self.method, self.prepend_bos = rows.method, prepend_bos
        self.sites: list[Site] = []
        self._rows, self._adapter = rows, adapter

    def points(self) -> list[int]:
        """Return the strength indices, ascending."""
        return self._rows.points()

    def at(self, strength_index: int, example_ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of a scale in the order of ``example_ids``."""
        return self._rows.at(strength_index, example_ids)

    def intervention(self, rows: pd.DataFrame) -> Intervention | None:
        """Return the adapter on the rows, each at its scale."""
        return Intervention({}, adapter=self._adapter.at(rows["strength"].to_numpy(dtype=float)))


#: What texts are generated under: a method, a plan, a text before the prompt, or other weights.
Steered = SteeredMethod | SteeredPlan | SteeredPrompt | SteeredWeights


def persona_of(concept: str | Path, target_class: Literal[0, 1]) -> str:
    """Return the persona of a concept file that asks for the target class.

    Raises:
        ConfigError: if the file is missing or malformed.
    """
    personas = read_concept(concept).personas
    return personas.positive if target_class == 1 else personas.negative


def read_steered_method(
    method: str,
    files: Mapping[str, str],
    site: Site,
    *,
    positions: Positions,
    target_class: Literal[0, 1],
    device: torch.device,
) -> Steered:
    """Read a method, or a plan, from the files of earlier stages.

    An adaptive method also needs ``probe`` and ``decoder``, a declared one ``decoder`` alone. With
    the decoder, a path can be extended for residuals that lie beyond its end.

    Args:
        method: its name.
        files: ``solutions`` and, for a plan, ``plan``; for prompting, ``concept``; for LoRA,
            ``adapter`` and ``adapter_config``; for any other method, as it needs them,
            ``directions``, ``path``, ``probe`` and ``decoder``. Other names are ignored.
        site: where to steer.
        positions: which prompt positions are steered besides every new token.
        target_class: that the method steers to.
        device: of the model.

    Raises:
        ValueError: if the method comes without one of its files.
        StorageError: if a file is missing or damaged.
    """
    if method == PROMPTING:
        rows = pd.read_parquet(files["solutions"], filters=[("method", "==", method)])
        prefix = persona_of(files["concept"], target_class)
        return SteeredPrompt(PlanRows(rows, {}), prefix, site.prepend_bos)
    if method == LORA:
        rows = pd.read_parquet(files["solutions"], filters=[("method", "==", method)])
        adapter = read_adapter(files["adapter"], files["adapter_config"])
        return SteeredWeights(PlanRows(rows, {}), adapter, site.prepend_bos)
    if "plan" in files:
        plan, solver = read_plan(files["solutions"], files["plan"], method), None
        if isinstance(plan, ProgramRows) and plan.solved_again:
            if "decoder" not in files:
                raise ValueError(f"files: {method} needs decoder")
            decoder = load_decoder(files["decoder"])
            inside = substitute(decoder, plan.logit.metric, plan.logit.cost)
            solver = program_solver(plan.logit, inside, site, device)
        return SteeredPlan(plan, site.prepend_bos, positions, solver)
    solutions = read_solution_vectors(
        method, files["solutions"], files.get("directions"), files.get("path")
    )
    solver = None
    if is_adaptive(method):
        missing = {"path", "probe", "decoder"} - files.keys()
        if missing:
            raise ValueError(f"files: {method} needs {', '.join(sorted(missing))}")
        probe = LinearProbe.load(files["probe"]).oriented(target_class)
        solver = AdaptiveSolver(
            SteeringPath.load(files["path"], load_decoder(files["decoder"])),
            probe.weight_vector,
            probe.bias,
            program_of(method),
            site,
            device,
        )
    return SteeredMethod(solutions, site, positions, solver)


def program_solver(
    logit: ProgramLogit,
    inside: Substitution,
    site: Site,
    device: torch.device,
    path: SteeringPath | None = None,
) -> TokenSolver:
    """Return the solver of a declared program for new residuals; its path grows as they need it.

    Args:
        logit: what the margin is on, and how the program is solved.
        inside: the dictionary in the program's metric and at its costs; without rows for ``dense``.
        site: where the residuals are.
        device: of the model.
        path: on that dictionary, if there is one already.
    """
    how = (logit.weight, logit.bias, logit.program, site, device)
    if logit.program == "dense":
        return MarginsSolver(None, *how, inside, logit.guards)
    if logit.weight.ndim > 1:
        tilted = np.stack([inside.weight(weight) for weight in logit.weight])
        if logit.guards is None:
            return MarginsSolver(WorkingSet(inside.decoder, tilted), *how, inside)
        held = logit.guards.mapped(inside.weight)
        return MarginsSolver(GuardedProgram(inside.decoder, tilted, held), *how, inside)
    weight = inside.weight(logit.weight)
    if logit.guards is None:
        path = path or SteeringPath.fit(inside.decoder, weight)
        return AdaptiveSolver(path, *how, inside.inverse)
    dictionary = Dictionary(inside.decoder)
    path = path or SteeringPath.fit(dictionary, weight)
    guarded = GuardedProgram(dictionary, weight, logit.guards.mapped(inside.weight), path=path)
    if logit.mode != "adaptive":  # few residuals: a table for all of them would cost more
        return MarginsSolver(guarded, *how, inside)
    return AdaptiveSolver(path, *how, inside.inverse, guarded)
