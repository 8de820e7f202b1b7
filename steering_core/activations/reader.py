"""Read cached residuals, whole or batch by batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from steering_core.activations.manifest import check_origin, damage_of, digest_of, origin
from steering_core.errors import StorageError
from steering_core.storage.json import read_json

# Snakemake looks for a part only if the manifest is missing too.
_ADVICE = "delete it and manifest.json beside it, and run again; the other parts are kept."


class ActivationCache:
    """The cache that a manifest describes.

    Args:
        manifest: path of ``manifest.json``; the parts lie beside it.
        resources: what the fetch stage found; the cache must have been made from that.
        examples: the file of texts; likewise.

    Raises:
        StorageError: if the manifest is missing, damaged or of another model, SAE, dtype or texts.

    """

    def __init__(
        self,
        manifest: str | Path,
        resources: dict[str, Any] | None = None,
        examples: str | Path | None = None,
    ):
        self.folder = Path(manifest).parent
        self.manifest: dict[str, Any] = read_json(manifest)
        if resources is not None:
            check_origin(self.manifest, origin(resources, examples), manifest)
        self._verified: set[Path] = set()

    @property
    def sites(self) -> list[str]:
        """Hook names of the cached sites."""
        return [site["hook_name"] for site in self.manifest["sites"]]

    def batches(self, hook_name: str) -> Iterator[tuple[list[str], Float[np.ndarray, "n d_model"]]]:
        """Yield ``(example_ids, residuals)`` row group by row group.

        Raises:
            StorageError: if the site is not cached, or a part is damaged or changed.

        """
        if hook_name not in self.sites:
            raise StorageError(f"{hook_name} is not cached; cached are {self.sites}. Set `layers`.")
        for part in self.manifest["parts"]:
            path = self.folder / Path(part["file"]).name  # beside the manifest, nowhere else
            with damage_of(path, _ADVICE):
                self._verify(path, part["sha256"])
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group, columns=["example_id", hook_name])
                        yield table["example_id"].to_pylist(), _matrix(table[hook_name])

    def _verify(self, path: Path, sha256: str) -> None:
        """Compare a part with its manifest, once: page checksums do not cover the headers."""
        if path not in self._verified:
            if digest_of(path) != sha256:
                raise StorageError(f"{path} is not what its manifest lists: {_ADVICE}")
            self._verified.add(path)

    def matrix(self, hook_name: str, example_ids: Sequence[str]) -> Float[np.ndarray, "n d_model"]:
        """Return the residuals of ``example_ids`` in that order (one position an example).

        Raises:
            StorageError: if one of them is not cached, or at more than one position.

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
                if found[target].any() or len(set(target)) < len(target):
                    raise StorageError(
                        f"{self.folder}: the cache holds several positions of an example, a matrix "
                        "has one row for each: read it by batches."
                    )
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
