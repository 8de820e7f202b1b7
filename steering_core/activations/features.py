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
    """Return the features of ``example_ids`` in that order, (n, d_sae).

    Raises:
        StorageError: if one of them has none, or the file is missing or damaged.

    """
    wanted = set(example_ids)
    found: list[str] = []
    blocks = []
    for names, block in read_features(path):
        mine = [i for i, name in enumerate(names) if name in wanted]
        if mine:
            found += [names[i] for i in mine]
            blocks.append(block[mine])
    place = {name: row for row, name in enumerate(found)}
    missing = next((name for name in example_ids if name not in place), None)
    if missing is not None or not blocks:
        raise StorageError(f"{missing} has no features: the examples changed; run again.")
    return sp.vstack(blocks, format="csr")[[place[name] for name in example_ids]]
