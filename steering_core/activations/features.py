"""Read the SAE features of cached residuals, stored sparse."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import scipy.sparse as sp

from steering_core.activations.manifest import damage_of
from steering_core.errors import StorageError


def read_features(
    path: str | Path,
) -> Iterator[tuple[list[str], sp.csr_matrix]]:
    """Yield ``(example_ids, features (n, d_sae))`` row group by row group.

    Raises:
        StorageError: if the file is missing or damaged.

    """
    with damage_of(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        d_sae = json.loads(file.schema_arrow.metadata[b"steering_core"])["d_sae"]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).combine_chunks()
            indices, values = (table[name].chunk(0) for name in ("indices", "values"))
            offsets = indices.offsets.to_numpy() - indices.offsets[0].as_py()
            matrix = sp.csr_matrix(
                (values.flatten().to_numpy(), indices.flatten().to_numpy(), offsets),
                shape=(table.num_rows, d_sae),
            )
            yield table["example_id"].to_pylist(), matrix


def feature_matrix(path: str | Path, example_ids: Sequence[str]) -> sp.csr_matrix:
    """Return the features of ``example_ids`` in that order, (n, d_sae)."""
    names: list[str] = []
    blocks = []
    for batch_names, block in read_features(path):
        names += batch_names
        blocks.append(block)
    order = {name: i for i, name in enumerate(names)}
    missing = [name for name in example_ids if name not in order]
    if missing:
        raise StorageError(f"{missing[0]} has no features: the examples changed; run again.")
    return sp.vstack(blocks, format="csr")[[order[name] for name in example_ids]]
