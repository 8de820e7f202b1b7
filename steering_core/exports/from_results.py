"""The row of an experiment's tables as an intervention, with all units resolved.

The tables store a position on the path, or a multiple of the mean residual norm. Here they become
vectors in residual-stream units, or a program with its margin.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.config.methods import (
    BASELINE,
    LORA,
    PROMPTING,
    REGISTER,
    is_program,
    mode_of,
    parameter_of,
    program_of,
)
from steering_core.errors import DataError, StorageError
from steering_core.exports.attach import FixedVector, SolvedProgram
from steering_core.methods.base import read_direction
from steering_core.methods.ready_programs import sparse_program
from steering_core.methods.solution_vectors import (
    ProgramLogit,
    ProgramRows,
    SolutionVectors,
    read_plan,
)
from steering_core.methods.solutions import STRENGTH, solved
from steering_core.models.site import Site, site_at
from steering_core.optimize.guarded import GuardedSolutions
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.solution import Solutions
from steering_core.optimize.substitution import Substitution, matrix_power, substitute
from steering_core.optimize.working_set.bounds import Guards
from steering_core.optimize.working_set.solver import WorkingSetSolutions
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_arrays, load_decoder
from steering_core.storage.files import read_json

#: What happens at each site, by the mode of the method.
OPERATIONS = {
    "fixed": "add one vector, the same for every input",
    "static": "solve a program at the last token of each prompt, add its solution to each token",
    "adaptive": "solve a program again at each token, and add its solution there",
}

#: Each site in the words of transformers.
PLACES = {
    "pre": "input of {block}",
    "post": "output of {block}",
    "mid": "stream between attention and MLP of {block}",
    "attn_out": "what attention of {block} adds to the stream",
    "mlp_out": "what the MLP of {block} adds to the stream",
    "attn": "output of the attention module of {block}",
    "mlp": "output of the MLP module of {block}",
}

#: The decoder of an experiment.
DECODER = "decoder.safetensors"


@dataclass(frozen=True, eq=False)
class _Found:
    """An intervention as the files of an experiment say it.

    Attributes:
        at: what is added at each site.
        features: with their coefficients; None if they are not fixed or not known.
        margin: of a program: what it is on.
    """

    at: Mapping[Site, FixedVector | SolvedProgram]
    features: list[list[float]] | None = None
    margin: dict[str, Any] | None = None


def read_row(
    directory: str | Path,
    method: str,
    strength: float | None = None,
    strength_index: int | None = None,
) -> tuple[dict[Site, FixedVector | SolvedProgram], dict[str, Any]]:
    """Read one row of an experiment.

    Args:
        directory: of the experiment.
        method: its name, or that of a plan, a declared program or a gated method.
        strength: as in the tables; by default the selected one.
        strength_index: its number, where ``strength`` is not unique.

    Returns:
        What is added at each site, and facts about it.

    Raises:
        StorageError: if a file is missing or damaged.
        DataError: if there is no such row, or it adds nothing.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise StorageError(f"{directory} is no directory: run the experiment first.")
    if not (directory / "layer.json").is_file() and any(directory.glob("corrsteer*")):
        raise DataError(
            f"{directory} is a CorrSteer experiment, whose plans are chosen for its own task: name "
            "one under `plans` in an experiment that delivers pareto.csv, and load it from there."
        )
    if method == LORA:
        raise DataError(
            f"{LORA} changes weights and adds nothing to the residual stream: load the adapter "
            f"with peft.PeftModel.from_pretrained(model, {str(directory / LORA)!r})."
        )
    if method in (BASELINE, PROMPTING):
        raise DataError(f"{method} adds nothing to the residual stream: choose another method.")
    site = site_at(read_json(directory / "layer.json"))
    provenance = read_json(directory / "provenance.json")["config"]
    solutions, rows = _rows(directory, method)
    point = _point(directory, method, rows, strength, strength_index)
    chosen = rows[rows["strength_index"] == point]
    if not solved(chosen).any():
        raise DataError(
            f"{method} has no solution at strength number {point}: it is "
            f"{chosen['status'].iloc[0]} for every input. Choose another strength."
        )
    first = chosen[solved(chosen)].iloc[[0]]
    found = _what(directory, method, solutions, chosen[solved(chosen)], site, provenance)
    at, gated = found.at, provenance["settings"].get("gated", {}).get(method)
    if not any(_adds(what) for what in at.values()):
        raise DataError(
            f"{method} adds nothing at strength number {point}: every input that it is made for "
            "has the margin already. Choose another strength."
        )
    facts = {
        **_strength(first.iloc[0]),
        "experiment": directory.name,
        "method": method,
        "selected": _selected(directory, method) == point,
        "positions": provenance["settings"]["positions"],
        "steer_bos": False,
        "features": found.features,
        **_origin(directory, site, at),
        **_what_is_solved(at),
        "margin": found.margin,
        "gate": None if gated is None else _gate(gated, at),
    }
    return at, facts


def _rows(directory: Path, method: str) -> tuple[Path, pd.DataFrame]:
    plan = directory / "plans" / f"{method}.parquet"
    for file in [plan, *sorted((directory / "solutions").glob("*.parquet"))]:
        if file.is_file():
            rows = pd.read_parquet(file, filters=[("method", "==", method)])
            if len(rows):
                return file, rows
    raise DataError(
        f"{directory} has no solutions of {method}: check the name, and run the experiment with it "
        "in `methods`."
    )


def _selected(directory: Path, method: str) -> int | None:
    file = directory / "pareto.csv"
    if not file.is_file():
        return None
    table = pd.read_csv(file)
    rows = table[table["method"] == method].reset_index(drop=True)
    chosen = rows.index[rows["selected"].astype(str) == "True"]
    return int(chosen[0]) if len(chosen) else None


def _point(
    directory: Path,
    method: str,
    rows: pd.DataFrame,
    strength: float | None,
    strength_index: int | None,
) -> int:
    points = rows.drop_duplicates("strength_index").sort_values("strength_index")
    known = "; ".join(
        f"{row.strength_index}: {row.strength_name} {row.strength:g}" for row in points.itertuples()
    )
    if strength_index is not None:
        if strength_index not in set(points["strength_index"]):
            raise DataError(f"{method} has no strength number {strength_index}; it has {known}.")
        return int(strength_index)
    if strength is not None:
        same = points[np.isclose(points["strength"], strength)]
        if len(same) != 1:
            problem = "several strengths" if len(same) else "no strength"
            raise DataError(
                f"{method} has {problem} {strength:g}; give strength_index instead: {known}."
            )
        return int(same["strength_index"].iloc[0])
    found = _selected(directory, method)
    if found is None:
        table = directory / "pareto.csv"
        why = f"{table} does not exist yet"
        if table.is_file():
            why = (
                f"none is selected in {table} (none is within the KL budget, or there are no "
                "validation prompts)"
            )
        raise DataError(f"which strength of {method}? {why}: give one of {known}.")
    return int(points["strength_index"].iloc[found])


def _strength(row: pd.Series) -> dict[str, Any]:
    numbers = {key: float(row[key]) for key in STRENGTH}
    return {
        "strength_index": int(row["strength_index"]),
        "strength_name": str(row["strength_name"]),
        **{key: None if np.isnan(value) else value for key, value in numbers.items()},
    }


def _what(
    directory: Path,
    method: str,
    solutions: Path,
    rows: pd.DataFrame,
    site: Site,
    config: Mapping[str, Any],
) -> _Found:
    """Return the intervention of the solved rows of one strength."""
    if solutions.parent.name == "plans":
        plan = read_plan(solutions, solutions.with_suffix(".safetensors"), method)
        if isinstance(plan, ProgramRows) and plan.gate is not None:
            return _behind_gate(directory, plan, rows, site, config)
        if isinstance(plan, ProgramRows):
            declared = config["settings"]["programs"][method]
            return _declared(directory, plan, plan.rows.loc[rows.index], declared)
        vectors = {s: plan.at_site(s).vectors(rows.iloc[[0]])[0] for s in plan.vectors}
        return _Found({s: FixedVector(vector) for s, vector in vectors.items()})
    if is_program(method):
        return _registered(directory, method, solutions.stem, rows.iloc[[0]], site, config)
    if method not in REGISTER:
        raise DataError(
            f"{method} is no registered method, plan or declared program: it cannot be loaded."
        )
    direction, unit = read_direction(directory / "directions.safetensors", method)
    scale = float(rows["strength"].iloc[0]) * unit
    features = None
    if direction.features is not None and direction.coefficients is not None:
        sizes = (scale * direction.coefficients).tolist()
        features = [list(pair) for pair in zip(direction.features.tolist(), sizes, strict=True)]
    return _Found({site: FixedVector(scale * direction.vector)}, features)


def _behind_gate(
    directory: Path,
    plan: ProgramRows,
    rows: pd.DataFrame,
    site: Site,
    config: Mapping[str, Any],
) -> _Found:
    """Return a gated method: the method behind the gate at the same strength, and the gate."""
    behind = config["settings"]["gated"][plan.method]["method"]
    solutions, its_rows = _rows(directory, behind)
    its_rows = its_rows[its_rows["strength_index"] == rows["strength_index"].iloc[0]]
    found = _what(directory, behind, solutions, its_rows[solved(its_rows)], site, config)
    at = {where: replace(what, gate=plan.gate) for where, what in found.at.items()}
    return replace(found, at=at)


def _registered(
    directory: Path,
    method: str,
    family: str,
    row: pd.DataFrame,
    site: Site,
    config: Mapping[str, Any],
) -> _Found:
    """Return a registered program: its margin is on the probe."""
    path_file = directory / "paths" / f"{family}.safetensors"
    program, mode = program_of(method), mode_of(method)
    tau, parameter = (float(row[name].iloc[0]) for name in ("tau", parameter_of(program)))
    probe = LinearProbe.load(directory / "probe.safetensors")
    probe = probe.oriented(config["task"]["target_class"])
    logit = ProgramLogit(program, probe.weight_vector, probe.bias, None, mode=mode)
    margin = _margin({}, logit, tau)
    if mode == "shared":
        path = SteeringPath.load(path_file)
        vector = SolutionVectors(row, path=path).vectors(row)[0]
        place = (row["position"].to_numpy(), row["shortfall"].to_numpy())
        features = _features(path.at(*place, program, parameter))
        return _Found({site: FixedVector(vector)}, features, margin)
    inside = substitute(load_decoder(directory / DECODER))
    path = SteeringPath.load(path_file, inside.decoder)
    return _Found({site: SolvedProgram(logit, tau, parameter, inside, path)}, margin=margin)


def _declared(
    directory: Path, plan: ProgramRows, rows: pd.DataFrame, declared: Mapping[str, Any]
) -> _Found:
    """Return a declared program: one vector for all inputs, or a program that is solved again."""
    logit, (site,) = plan.logit, plan.vectors
    if logit is None:
        raise StorageError(
            f"the solutions of {plan.method} are of an earlier version: run the experiment again."
        )
    row = rows.iloc[[0]]
    tau, parameter = float(row["tau"].iloc[0]), float(plan.parameters(row)[0])
    margin = _margin(declared, logit, tau)
    inside = dictionary_of(logit, directory / DECODER)
    if logit.mode in ("uniform", "shared"):
        vector = plan.at_site(site).vectors(row)[0]
        features = _features_of_one(logit, row, tau, parameter, inside)
        return _Found({site: FixedVector(vector)}, features, margin)
    path = None
    if logit.program != "dense" and logit.weight.ndim == 1:
        path = SteeringPath.fit(inside.decoder, inside.weight(logit.weight))
        # As far as the experiment's own inputs needed it.
        (path.qp if logit.program == "qp" else path.socp)(rows["shortfall"], parameter)
    return _Found({site: SolvedProgram(logit, tau, parameter, inside, path)}, margin=margin)


def dictionary_of(logit: ProgramLogit, decoder: Path) -> Substitution:
    """Return the dictionary of a program in its metric and at its costs; ``dense`` has no rows."""
    if logit.program != "dense":
        return substitute(load_decoder(decoder), logit.metric, logit.cost)
    inverse = None if logit.metric is None else matrix_power(logit.metric, -0.5)
    return Substitution(np.zeros((0, logit.weight.shape[-1])), inverse)


def _features_of_one(
    logit: ProgramLogit, row: pd.DataFrame, tau: float, parameter: float, inside: Substitution
) -> list[list[float]] | None:
    """Return the features of a program that has one solution for all inputs.

    None for ``dense``, and for several margins that are shared: of these the rows have the largest
    shortfall alone.
    """
    weights = np.atleast_2d(logit.weight)
    if logit.program == "dense" or (len(weights) > 1 and logit.mode == "shared"):
        return None
    tilted = np.stack([inside.weight(weight) for weight in weights])
    program = sparse_program(inside, tilted, logit.guards)
    shortfall = (
        row["shortfall"].to_numpy() if len(weights) == 1 else np.full((1, len(weights)), tau)
    )
    found = (program.qp if logit.program == "qp" else program.socp)(shortfall, parameter)
    return _features(found, inside.cost)


def _margin(declared: Mapping[str, Any], logit: ProgramLogit, tau: float) -> dict[str, Any]:
    """Return what the margin of a program is on, and what the program minimises."""
    direction = declared.get("concept_direction", "probe")
    names = direction if isinstance(direction, list) else [direction]
    norms = np.linalg.norm(np.atleast_2d(logit.weight), axis=1).tolist()
    biases = np.atleast_1d(logit.bias).tolist()
    return {
        "on": [
            {
                "direction": name,
                "calibrated_to_logits": name != "probe",
                "logit_bias": one_bias,
                "logit_weight_norm": norm,
            }
            for name, one_bias, norm in zip(names, biases, norms, strict=True)
        ],
        "tau": tau,
        "mode": logit.mode,
        "metric": declared.get("metric", "identity"),
        "feature_cost": declared.get("feature_cost", "unit"),
        "guards": _guards(logit.guards),
    }


def _guards(guards: Guards | None) -> list[dict[str, Any]]:
    """Return how far a program may move the residual along which directions."""
    if guards is None:
        return []
    norms = np.linalg.norm(guards.directions, axis=1).tolist()
    named = zip(guards.names, guards.kappa.tolist(), norms, strict=True)
    return [{"name": name, "kappa": kappa, "direction_norm": norm} for name, kappa, norm in named]


def _gate(
    gated: Mapping[str, Any], at: Mapping[Site, FixedVector | SolvedProgram]
) -> dict[str, Any]:
    """Return where a gated method acts: its condition, and the half-space that it stands for."""
    (what,) = at.values()
    return {
        "behind": gated["method"],
        "condition": {key: value for key, value in gated["gate"].items() if value is not None},
        "open_where": "gate.weight · h + gate.bias > 0, at each steered token",
        "weight_norm": float(np.linalg.norm(what.gate.weight)),
        "bias": float(what.gate.bias),
    }


def _features(
    solution: Solutions | GuardedSolutions | WorkingSetSolutions,
    cost: Float[np.ndarray, " d_sae"] | None = None,
) -> list[list[float]]:
    """Return feature and coefficient of one solution, by feature."""
    delta = solution.delta.tocsr()
    sizes = delta.data if cost is None else delta.data / cost[delta.indices]
    return sorted(list(pair) for pair in zip(delta.indices.tolist(), sizes.tolist(), strict=True))


def _adds(what: FixedVector | SolvedProgram) -> bool:
    return isinstance(what, SolvedProgram) or bool(np.any(what.vector))


def _what_is_solved(at: Mapping[Site, FixedVector | SolvedProgram]) -> dict[str, Any]:
    (what, *_) = at.values()
    gated = "" if what.gate is None else ", where the gate is open"
    if isinstance(what, FixedVector):
        return {"operation": OPERATIONS["fixed"] + gated, "program": None}
    parameters = {"qp": "lambda", "socp": "epsilon", "dense": None}
    program = {
        "name": what.logit.program,
        "mode": what.logit.mode,
        "tau": what.tau,
        "parameter": None if math.isnan(what.parameter) else what.parameter,
        "parameter_name": parameters[what.logit.program],
    }
    return {"operation": OPERATIONS[what.logit.mode] + gated, "program": program}


def _origin(
    directory: Path, own: Site, at: Mapping[Site, FixedVector | SolvedProgram]
) -> dict[str, Any]:
    """Return model, SAE, sites and dose; the mean residual norm is known at the site ``own``."""
    resources = read_json(directory / "resources.json")
    shape = resources["shape"]
    arrays, _ = load_arrays(directory / "directions.safetensors")
    unit = float(arrays["residual_norm"][0])
    saes = {sae["hook_name"]: sae for sae in resources["saes"]}
    sites = []
    for site, what in at.items():
        norm = float(np.linalg.norm(what.vector)) if isinstance(what, FixedVector) else None
        block = f"{shape['blocks_path']}.{site.layer}"
        states = {"pre": site.layer, "post": site.layer + 1}
        sites.append(
            {
                "site": site.to_dict(),
                "transformer_lens": site.hook_name,
                "transformers": PLACES[site.stream].format(block=block),
                "block": block,
                "hidden_states_index": states.get(site.stream),
                "added_norm": norm,
                "added_norm_relative": norm / unit if norm is not None and site == own else None,
            }
        )
    site = next(iter(at))
    sae = saes.get(site.hook_name, {})
    return {
        "model": {**resources["model"], **{k: shape[k] for k in (
            "architecture", "n_layers", "d_model", "context", "blocks_path")}},
        "sae": {
            "name": sae.get("name"),
            "neuronpedia_id": sae.get("neuronpedia_id"),
            "revision": resources.get("sae_revision"),
        },
        "mean_residual_norm": unit,
        "sites": sites,
    }  # fmt: skip
