"""Write an export: the intervention, what it is, and the files of other programs."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from steering_core.config.model import SAESource
from steering_core.errors import StorageError
from steering_core.exports.attach import FixedVector
from steering_core.exports.formats import WRITERS, UnsayableError, layer_map
from steering_core.exports.from_results import DECODER, read_row
from steering_core.exports.load import ARRAYS, FACTS, FORMAT, PATH, LoadedIntervention
from steering_core.methods.solution_vectors import ProgramLogit
from steering_core.models.sae_source import sae_id
from steering_core.storage.arrays import save_arrays
from steering_core.storage.files import atomic_directory, read_json, write_json
from steering_core.storage.integrity import content_digest
from steering_core.tables.pages import neuronpedia_url

log = logging.getLogger(__name__)


def export_row(
    experiment: str | Path,
    method: str,
    out: str | Path,
    *,
    strength: float | None = None,
    strength_index: int | None = None,
) -> dict[str, Any]:
    """Export one row of an experiment; by default the selected strength.

    Args:
        experiment: its directory.
        method: a method, a plan, a declared program or a gated method.
        out: the directory to write; it must not exist.
        strength: as in the tables.
        strength_index: its number.

    Returns:
        What ``intervention.json`` says. Its ``formats`` name the file of each consumer with what
        that file cannot say, or the reason why there is none.

    Raises:
        StorageError: if ``out`` exists, or a file of the experiment is missing or damaged.
        DataError: if there is no such row, or it adds nothing.
    """
    out = Path(out)
    if out.exists():
        raise StorageError(f"{out} exists: delete it, or choose another directory.")
    at, facts = read_row(experiment, method, strength, strength_index)
    facts = {**facts, "format": FORMAT, "links": _links(facts), "sae": _sae(experiment, facts)}
    facts["sites"] = [
        {**said, "layer_map": layer_map(site)}
        for site, said in zip(at, facts["sites"], strict=True)
    ]
    with atomic_directory(out) as directory:
        arrays = {}
        for k, what in enumerate(at.values()):
            if isinstance(what, FixedVector):
                arrays[f"vector.{k}"] = np.asarray(what.vector, dtype=np.float64)
            else:
                arrays |= _program_arrays(what.logit)
                if what.path is not None:
                    what.path.save(directory / PATH)
                if what.logit.program != "dense":
                    shutil.copyfile(Path(experiment) / DECODER, directory / DECODER)
            if what.gate is not None:
                arrays["gate.weight"] = np.asarray(what.gate.weight, dtype=np.float64)
                arrays["gate.bias"] = np.array([what.gate.bias], dtype=np.float64)
        save_arrays(directory / ARRAYS, arrays, {"format": FORMAT})
        facts["formats"] = _write_formats(LoadedIntervention(at, facts), directory)
        facts["digests"] = {file.name: content_digest(file) for file in sorted(directory.iterdir())}
        write_json(directory / FACTS, facts)
    return facts


def _program_arrays(logit: ProgramLogit) -> dict[str, np.ndarray]:
    """Return all that solving a program needs besides the decoder."""
    arrays = {"logit.weight": logit.weight, "logit.bias": np.atleast_1d(logit.bias)}
    if logit.metric is not None:
        arrays["metric"] = logit.metric
    if logit.cost is not None:
        arrays["cost"] = logit.cost
    if logit.guards is not None:
        arrays["guards.directions"] = logit.guards.directions
        arrays["guards.kappa"] = logit.guards.kappa
    return {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}


def _write_formats(one: LoadedIntervention, directory: Path) -> dict[str, dict[str, Any]]:
    formats: dict[str, dict[str, Any]] = {}
    for consumer, (write, warn) in WRITERS.items():
        try:
            formats[consumer] = {"file": write(one, directory), "warnings": warn(one)}
        except UnsayableError as reason:
            formats[consumer] = {"refused": str(reason)}
        for warning in formats[consumer].get("warnings", []):
            log.warning("%s: %s", consumer, warning)
    return formats


def _links(facts: dict[str, Any]) -> list[str | None] | None:
    if facts["features"] is None:
        return None
    neuronpedia = facts["sae"]["neuronpedia_id"]
    return [neuronpedia_url(neuronpedia, int(feature)) for feature, _ in facts["features"]]


def _sae(experiment: str | Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the SAE with the release and id of sae-lens, where it has them."""
    config = read_json(Path(experiment) / "provenance.json")["config"]["model"]["sae"]
    layer = facts["sites"][0]["site"]["layer"]
    name = sae_id(SAESource(**config), layer) if config.get("id") else None
    return {**facts["sae"], "release": config.get("release"), "id": name}
