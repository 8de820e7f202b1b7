"""Write an export: the intervention, what it is, and the files of other programs."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from steering_core.errors import StorageError
from steering_core.exports.attach import FixedVector
from steering_core.exports.formats import WRITERS, UnsayableError
from steering_core.exports.load import (
    ARRAYS,
    DECODER,
    FACTS,
    FORMAT,
    PATH,
    LoadedIntervention,
    sha256,
)
from steering_core.exports.rows import read_row
from steering_core.optimize.path import SteeringPath
from steering_core.storage.arrays import save_arrays, save_decoder
from steering_core.storage.files import atomic_directory, read_json, write_json
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
        method: a method, a plan or a declared program.
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
    at, facts, dictionary = read_row(experiment, method, strength, strength_index)
    facts = {**facts, "format": FORMAT, "links": _links(facts), "sae": _sae(experiment, facts)}
    with atomic_directory(out) as directory:
        arrays = {}
        for k, what in enumerate(at.values()):
            if isinstance(what, FixedVector):
                arrays[f"vector.{k}"] = np.asarray(what.vector, dtype=np.float64)
                continue
            arrays["logit.weight"] = np.asarray(what.weight, dtype=np.float64)
            arrays["logit.bias"] = np.atleast_1d(what.bias)
            if what.inverse is not None:
                arrays["metric.inverse"] = what.inverse
            if isinstance(what.path, SteeringPath):
                what.path.save(directory / PATH)
        save_arrays(directory / ARRAYS, arrays, {"format": FORMAT})
        if isinstance(dictionary, Path):
            shutil.copyfile(dictionary, directory / DECODER)
        elif dictionary is not None:
            save_decoder(directory / DECODER, dictionary, f"{facts['sae']['name']}, transformed")
        facts["formats"] = _write_formats(LoadedIntervention(at, facts), directory)
        facts["digests"] = {file.name: sha256(file) for file in sorted(directory.iterdir())}
        write_json(directory / FACTS, facts)
    return facts


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
    name = config["id"].format(layer=layer) if config.get("id") else None
    return {**facts["sae"], "release": config.get("release"), "id": name}
