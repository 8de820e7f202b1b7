"""Encode cached residuals into SAE features and store them sparse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch

from steering_core.activations.reader import ActivationCache
from steering_core.errors import ModelError
from steering_core.models.sparse_autoencoder import FeatureDictionary
from steering_core.progress import progress
from steering_core.storage.atomic import atomic_path

_FIELDS = [
    pa.field("example_id", pa.string(), nullable=False),
    pa.field("indices", pa.list_(pa.int32()), nullable=False),
    pa.field("values", pa.list_(pa.float32()), nullable=False),
]


def encode_features(
    cache: ActivationCache,
    dictionary: FeatureDictionary,
    path: str | Path,
    *,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Encode the cached residuals of the dictionary's site and write the active features.

    Values are activations of unit-norm decoder rows: lengths in the residual stream.

    Raises:
        ModelError: if an activation is not finite.
    """
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
