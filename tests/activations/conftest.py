"""Small cache files with known values, written without a model."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steering_core.activations.cache import activation_schema
from steering_core.models.site import Site

SITE = Site(0, "pre", False, True)


@pytest.fixture
def write_part():
    """Return a function that writes example ids and values, a row group for each list.

    ``positions`` has a list for each of them; 3 by default.
    """

    def write(path, groups, seed=0, positions=None, **header):
        metadata = {"sites": [{"hook_name": SITE.hook_name}], "model": {"dtype": "f4"}, **header}
        schema = activation_schema([SITE], 4, metadata)
        rng = np.random.default_rng(seed)
        values = {}
        with pq.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=False, write_page_checksum=True
        ) as writer:
            for number, group in enumerate(groups):
                block = rng.normal(size=(len(group), 4)).astype(np.float32)
                values |= dict(zip(group, block, strict=True))
                places = positions[number] if positions else [3] * len(group)
                columns = [
                    pa.array(group, pa.string()),
                    pa.array(places, pa.int32()),
                    pa.array([1] * len(group), pa.int32()),
                    pa.array([True] * len(group)),
                    pa.FixedSizeListArray.from_arrays(block.ravel(), type=schema.field(4).type),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        return values

    return write
