"""The tables of all methods of a job: one process loads the model once for all of them.

The table of each method is kept in a file of its own as soon as it is complete
(:mod:`steering_core.storage.integrity`).
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
from steering_core.methods.solutions import STRENGTH, selected_row
from steering_core.models.language_model import LanguageModel
from steering_core.models.resources import fetched_model, site_at
from steering_core.storage.integrity import content_digest
from steering_core.storage.parquet import one_below_the_other, table_digest, table_made_once

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


def selected_strength(method: str, pareto: pd.DataFrame) -> list[str]:
    """Return the strength of a method that pareto.csv selects, for what a table is made from."""
    row = selected_row(pareto, method)
    return [] if row is None else [str(row[name]) for name in ("strength_name", *STRENGTH)]


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

    def steered(self, method: str) -> Steered:
        """Return how a method steers the texts of its experiment."""
        return read_steered_method(
            method,
            self.params.methods[method],
            site_at(self.layer),
            positions=self.params.settings["positions"],
            target_class=self.params.target_class,
            device=self.lm.device,
        )

    def tables(
        self,
        folder: str | Path,
        make: Callable[[str], pd.DataFrame],
        source: Callable[[str], Mapping[str, Any]],
        schema: pa.Schema | None = None,
    ) -> pa.Table:
        """Return the tables of all methods, one below the other, with a column ``method``.

        Args:
            folder: where the table of each method is kept, as ``{method}.parquet``.
            make: makes the table of a method.
            source: returns what the table of a method is made from, as JSON holds it, beside the
                parameters of the job, the model and what the method steers with.
            schema: of a method's table, as :func:`steering_core.storage.parquet.write_parquet`
                takes it.
        """
        params = self.params
        common = {
            "code": params.code,
            "settings": params.settings,
            "target_class": params.target_class,
            "model": self.resources["model"],
            "layer": self.layer,
        }

        def table_of(method: str) -> pa.Table:
            steering = steering_digests(method, params.methods[method])
            made_from = {**common, **source(method), "steering": steering}
            return table_made_once(folder, method, made_from, partial(make, method), schema)

        return one_below_the_other(map(table_of, params.methods))
