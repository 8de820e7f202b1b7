"""SAE features of cached residuals: encoded once, stored sparse, read back."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from steering_core.activations.manifest import damage_of
from steering_core.activations.reader import ActivationCache
from steering_core.errors import ModelError, StorageError
from steering_core.progress import progress
from steering_core.storage.files import atomic_path

if TYPE_CHECKING:  # what reads features needs no model
    from steering_core.models.sparse_autoencoder import FeatureDictionary

_FIELDS = [
    pa.field("example_id", pa.string(), nullable=False),
    pa.field("indices", pa.list_(pa.int32()), nullable=False),
    pa.field("values", pa.list_(pa.float32()), nullable=False),
]


def encode_features(
    cache: ActivationCache,
    dictionary: "FeatureDictionary",
    path: str | Path,
    *,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Encode the cached residuals of the dictionary's site and write the active features.

    Activations are scaled to decoder rows of norm 1, so they are lengths in the residual stream.

    Raises:
        ModelError: if an activation is not finite.
    """
    import torch

    header = {"d_sae": dictionary.d_sae, "sae": dictionary.description, **(metadata or {})}
    schema = pa.schema(_FIELDS, {"steering_core": json.dumps(header, sort_keys=True)})
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        batches = cache.batches(dictionary.site.hook_name)
        for names, residuals in progress(batches, "encoding features"):
            features = dictionary.encode(torch.tensor(residuals)).float()
            active = sp.csr_matrix(features.cpu().numpy())
            if not np.isfinite(active.data).all():
                raise ModelError(
                    f"{dictionary.description}: some features of the residual stream are not "
                    f"finite numbers in {dictionary.sae.dtype}: write a wider dtype, such as "
                    "float32, into the SAE's cfg.json, or choose another SAE."
                )
            active.sort_indices()
            offsets = pa.array(active.indptr.astype(np.int32))
            columns = [
                pa.array(names, pa.string()),
                pa.ListArray.from_arrays(offsets, pa.array(active.indices.astype(np.int32))),
                pa.ListArray.from_arrays(offsets, pa.array(active.data.astype(np.float32))),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


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
        StorageError: if an example has no row, or the file is missing or damaged.

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
