"""The tables of all methods of a job: one process loads the model once for all of them.

The table of each method is kept in a file of its own as soon as it is complete. So a killed job
loses one method, and a change that concerns one method makes that one again
(:mod:`steering_core.storage.once`).
"""

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.generation.steered_method import Steered, read_steered_method
from steering_core.methods.base import read_direction
from steering_core.models.language_model import LanguageModel
from steering_core.models.resources import fetched_model, site_at
from steering_core.storage.integrity import content_digest
from steering_core.storage.once import make_once
from steering_core.storage.parquet import table_digest, write_parquet

#: The digest of a file, once a process: the methods of a family share large files.
_digest_of = cache(content_digest)


def rows_of(method: str, file: str | Path) -> pa.Table:
    """Return the rows of a method from a table of several methods."""
    return pq.read_table(file, filters=[("method", "==", method)])


def steering_digests(method: str, files: Mapping[str, str]) -> dict[str, str]:
    """Return digests of all that a method steers with.

    Of the solutions and of the directions, which hold several methods, only its own count.

    Args:
        method: its name.
        files: as :func:`steering_core.generation.steered_method.read_steered_method` reads them.

    Raises:
        StorageError: if the method has no direction in its file.
    """
    found = {}
    for name, file in files.items():
        if name == "solutions":
            found[name] = table_digest(rows_of(method, file))
        elif name == "directions":
            direction, unit = read_direction(file, method)
            arrays = {"unit": unit, **vars(direction)}
            found[name] = table_digest(pa.table({key: [value] for key, value in arrays.items()}))
        else:
            found[name] = _digest_of(file)
    return found


class SteeredMethods:
    """The methods of a job, and the model that they steer.

    Args:
        params: of the job: ``model``, ``target_class``, ``settings``, ``code``, and ``methods``,
            the files that each method steers with.
        resources: content of resources.json.
        layer: content of layer.json, the site.
    """

    def __init__(self, params: Any, resources: dict[str, Any], layer: dict[str, Any]):
        self.params, self.resources, self.layer = params, resources, layer

    @cached_property
    def lm(self) -> LanguageModel:
        """The model, loaded when it is first asked for: not at all if every table is there."""
        device = self.params.settings["device"]
        return fetched_model(self.params.model, self.resources, device)

    def tables(
        self,
        folder: str | Path,
        make: Callable[[Steered], pd.DataFrame],
        source: Callable[[str], Mapping[str, str]],
        schema: pa.Schema | None = None,
    ) -> pa.Table:
        """Return the tables of all methods, one below the other.

        Args:
            folder: where the table of each method is kept, as ``{method}.parquet``.
            make: makes the table of a method.
            source: returns the digests of what the table of a method is made from, beside its
                parameters, the model and what it steers with.
            schema: of the table, as :func:`steering_core.storage.parquet.write_parquet` takes it.
        """
        params = self.params
        common = {
            "code": params.code,
            "settings": params.settings,
            "target_class": params.target_class,
            "model": self.resources["model"],
            "layer": self.layer,
        }
        parts = []
        for method, files in params.methods.items():
            part = Path(folder) / f"{method}.parquet"
            made_from = {**common, **source(method), "steering": steering_digests(method, files)}
            make_once(part, made_from, partial(self._write, method, make, schema))
            parts.append(pq.read_table(part))
        whole = pa.concat_tables(parts, promote_options="permissive")
        return whole.replace_schema_metadata(None)

    def _write(
        self,
        method: str,
        make: Callable[[Steered], pd.DataFrame],
        schema: pa.Schema | None,
        path: Path,
    ) -> None:
        steered = read_steered_method(
            method,
            self.params.methods[method],
            site_at(self.layer),
            positions=self.params.settings["positions"],
            target_class=self.params.target_class,
            device=self.lm.device,
        )
        write_parquet(path, make(steered), schema)
