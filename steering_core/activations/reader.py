"""Read cached residuals, whole or batch by batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from steering_core.errors import StorageError
from steering_core.storage.json import read_json


class ActivationCache:
    """The cache that a manifest describes.

    Args:
        manifest: path of ``manifest.json``; the parts lie beside it.

    """

    def __init__(self, manifest: str | Path):
        self.folder = Path(manifest).parent
        self.manifest: dict[str, Any] = read_json(manifest)

    @property
    def sites(self) -> list[str]:
        """Hook names of the cached sites."""
        return [site["hook_name"] for site in self.manifest["sites"]]

    def batches(self, hook_name: str) -> Iterator[tuple[list[str], Float[np.ndarray, "n d_model"]]]:
        """Yield ``(example_ids, residuals)`` row group by row group.

        Raises:
            StorageError: if the site is not cached or a part is damaged.

        """
        if hook_name not in self.sites:
            raise StorageError(f"{hook_name} is not cached; cached are {self.sites}. Set `layers`.")
        for part in self.manifest["parts"]:
            path = self.folder / part["file"]
            try:
                file = pq.ParquetFile(path, page_checksum_verification=True)
                if file.metadata.num_rows != part["rows"]:
                    raise StorageError(f"{path} has not the rows its manifest names: delete it.")
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["example_id", hook_name])
                    yield table["example_id"].to_pylist(), _matrix(table[hook_name])
            except (pa.ArrowInvalid, OSError) as error:
                raise StorageError(f"{path} is damaged ({error}): delete it, run again.") from error

    def matrix(self, hook_name: str, example_ids: Sequence[str]) -> Float[np.ndarray, "n d_model"]:
        """Return the residuals of ``example_ids`` in that order (one position an example).

        Raises:
            StorageError: if one of them is not cached.

        """
        index = {name: i for i, name in enumerate(example_ids)}
        out: np.ndarray | None = None
        found = np.zeros(len(index), dtype=bool)
        for names, residuals in self.batches(hook_name):
            rows = [(i, index[name]) for i, name in enumerate(names) if name in index]
            if out is None:
                out = np.empty((len(index), residuals.shape[1]), dtype=residuals.dtype)
            if rows:
                source, target = map(list, zip(*rows, strict=True))
                out[target] = residuals[source]
                found[target] = True
        if out is None or not found.all():
            missing = next((n for n, i in index.items() if not found[i]), "all of them")
            raise StorageError(f"{missing} is not in the cache: the examples changed; run again.")
        return out


def _matrix(column: pa.ChunkedArray) -> Float[np.ndarray, "n d_model"]:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.flatten().to_numpy().reshape(len(array), array.type.list_size)
