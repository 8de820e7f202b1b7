"""The row of an experiment's tables as an intervention, with all units resolved.

The tables store a position on the path, or a multiple of the mean residual norm. Here they become
vectors in residual-stream units, or a program with its margin.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.methods import (
    BASELINE,
    PROMPTING,
    REGISTER,
    is_program,
    mode_of,
    program_of,
)
from steering_core.errors import DataError, StorageError
from steering_core.exports.attach import FixedVector, SolvedProgram
from steering_core.methods.base import read_direction
from steering_core.methods.interventions import Interventions, PlanRows, ProgramRows, read_plan
from steering_core.methods.solutions import solved
from steering_core.models.resources import site_at
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import load_arrays, load_decoder
from steering_core.storage.files import read_json

#: What happens at each site, by the mode of the method.
OPERATIONS = {
    "fixed": "add one vector, the same for every input",
    "static": "solve a program at the last token of each prompt, add its solution to each token",
    "adaptive": "solve a program again at each token, and add its solution there",
}


def read_row(
    directory: str | Path,
    method: str,
    strength: float | None = None,
    strength_index: int | None = None,
) -> tuple[dict[Site, FixedVector | SolvedProgram], dict[str, Any], dict[str, Path]]:
    """Read one row of an experiment.

    Args:
        directory: of the experiment.
        method: its name, or that of a plan.
        strength: as in the tables; by default the selected one.
        strength_index: its number, where ``strength`` is not unique.

    Returns:
        What is added at each site; facts about it; and the files of the path and the decoder, for
        a program that is solved for each prompt or token.

    Raises:
        StorageError: if a file is missing or damaged.
        DataError: if there is no such row, or it adds nothing.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise StorageError(f"{directory} is no directory: run the experiment first.")
    if method in (BASELINE, PROMPTING):
        raise DataError(f"{method} adds nothing to the residual stream: choose another method.")
    site = site_at(read_json(directory / "layer.json"))
    provenance = read_json(directory / "provenance.json")["config"]
    solutions, rows = _rows(directory, method)
    point = _point(directory, method, rows, strength, strength_index)
    chosen = rows[rows["strength_index"] == point]
    if not solved(chosen).any():
        raise DataError(
            f"{method} has no solution at strength {point}: it is "
            f"{chosen['status'].iloc[0]} for every input. Choose another strength."
        )
    first = chosen[solved(chosen)].iloc[[0]]
    at, features, files = _what(directory, method, solutions, first, site, provenance)
    facts = {
        **_strength(first.iloc[0]),
        "experiment": directory.name,
        "method": method,
        "selected": _selected(directory, method) == point,
        "positions": provenance["settings"]["positions"],
        "steer_bos": False,
        "features": features,
        **_origin(directory, at),
        **_what_is_solved(at),
    }
    return at, facts, files


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
        raise DataError(
            f"no strength of {method} is selected in {directory / 'pareto.csv'} (none is within "
            f"the KL budget, or there are no validation prompts): give one of {known}."
        )
    return int(points["strength_index"].iloc[found])


def _strength(row: pd.Series) -> dict[str, Any]:
    numbers = {key: float(row[key]) for key in ("strength", "tau", "lam", "epsilon")}
    return {
        "strength_index": int(row["strength_index"]),
        "strength_name": str(row["strength_name"]),
        **{key: None if np.isnan(value) else value for key, value in numbers.items()},
    }


def refuse_conditions(plan: PlanRows) -> None:
    """Refuse what no export can do: a gate, or guards where a program is solved anew.

    Raises:
        DataError: naming the method.
    """
    if not isinstance(plan, ProgramRows):
        return
    if plan.gate is not None:
        raise DataError(
            f"{plan.method} acts only where its gate is open, and neither a plain model nor the "
            "format of another program has gates: export the method behind the gate."
        )
    if plan.logit is not None and plan.logit.guards is not None:
        raise DataError(
            f"{plan.method} is solved with guards, and an export has the path without them: export "
            "the program without guards."
        )


def _what(
    directory: Path,
    method: str,
    solutions: Path,
    row: pd.DataFrame,
    site: Site,
    provenance: Mapping[str, Any],
) -> tuple[dict[Site, FixedVector | SolvedProgram], list[list[float]] | None, dict[str, Path]]:
    """Return what is added, its features (None if unknown), and the files of a program."""
    if solutions.parent.name == "plans":
        plan = read_plan(solutions, solutions.with_suffix(".safetensors"), method)
        refuse_conditions(plan)
        vectors = {s: plan.at_site(s).vectors(row)[0] for s in plan.vectors}
        return {s: FixedVector(vector) for s, vector in vectors.items()}, None, {}
    if not is_program(method):
        if method not in REGISTER:
            raise DataError(f"{method} is no registered method and no plan: it cannot be loaded.")
        direction, unit = read_direction(directory / "directions.safetensors", method)
        scale = float(row["strength"].iloc[0]) * unit
        features = None
        if direction.features is not None and direction.coefficients is not None:
            sizes = (scale * direction.coefficients).tolist()
            features = [list(pair) for pair in zip(direction.features.tolist(), sizes, strict=True)]
        return {site: FixedVector(scale * direction.vector)}, features, {}
    path_file = directory / "paths" / f"{solutions.stem}.safetensors"
    decoder_file = directory / "decoder.safetensors"
    parameter = float(row["lam" if program_of(method) == "qp" else "epsilon"].iloc[0])
    if mode_of(method) == "shared":
        path = SteeringPath.load(path_file)
        vector = Interventions(row, path=path).vectors(row)[0]
        place = (row["position"].to_numpy(), row["shortfall"].to_numpy())
        delta = path.at(*place, program_of(method), parameter).delta.tocsr()
        pairs = zip(delta.indices.tolist(), delta.data.tolist(), strict=True)
        return {site: FixedVector(vector)}, sorted(list(pair) for pair in pairs), {}
    probe = LinearProbe.load(directory / "probe.safetensors")
    probe = probe.oriented(provenance["task"]["target_class"])
    what = SolvedProgram(
        program_of(method),
        mode_of(method),
        float(row["tau"].iloc[0]),
        parameter,
        probe.weight_vector,
        probe.bias,
        SteeringPath.load(path_file, load_decoder(decoder_file)),
    )
    return {site: what}, None, {"path": path_file, "decoder": decoder_file}


def _what_is_solved(at: Mapping[Site, FixedVector | SolvedProgram]) -> dict[str, Any]:
    (what, *_) = at.values()
    if isinstance(what, FixedVector):
        return {"operation": OPERATIONS["fixed"], "program": None}
    program = {
        "name": what.program,
        "mode": what.mode,
        "tau": what.tau,
        "parameter": what.parameter,
        "parameter_name": "lambda" if what.program == "qp" else "epsilon",
        "probe_bias": what.bias,
    }
    return {"operation": OPERATIONS[what.mode], "program": program}


def _origin(directory: Path, at: Mapping[Site, FixedVector | SolvedProgram]) -> dict[str, Any]:
    """Return model, SAE, sites and dose."""
    resources = read_json(directory / "resources.json")
    shape = resources["shape"]
    arrays, _ = load_arrays(directory / "directions.safetensors")
    unit = float(arrays["residual_norm"][0])
    saes = {sae["hook_name"]: sae for sae in resources["saes"]}
    sites = []
    for site, what in at.items():
        norm = float(np.linalg.norm(what.vector)) if isinstance(what, FixedVector) else None
        block = f"{shape['blocks_path']}.{site.layer}"
        sites.append(
            {
                "site": site.to_dict(),
                "transformer_lens": site.hook_name,
                "transformers": f"{'input' if site.stream == 'pre' else 'output'} of {block}",
                "block": block,
                "hidden_states_index": site.layer + (site.stream == "post"),
                "added_norm": norm,
                "added_norm_relative": None if norm is None else norm / unit,
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
