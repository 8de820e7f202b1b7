"""Run the model once over the examples and stream residuals at every site to Parquet."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int

from steering_core.errors import DataError
from steering_core.models.language_model import LanguageModel
from steering_core.models.residual_stream import read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import batch_cuts, pad, padded_widths, tokenize_many
from steering_core.progress import counter
from steering_core.storage.files import atomic_path

log = logging.getLogger(__name__)

#: Rows of a row group: what writing and reading hold at once besides a batch.
GROUP_ROWS = 256
#: Residuals that wait for the writer: several batches of last tokens, so that the device goes on
#: while a row group is compressed.
QUEUE_BYTES = 2**26


def activation_schema(sites: Sequence[Site], d_model: int, metadata: dict[str, Any]) -> pa.Schema:
    """Return the Parquet schema: where a row comes from, and one vector column per site."""
    fields = [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("mask", pa.bool_(), nullable=False),
    ]
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), d_model)
    fields += [pa.field(site.hook_name, vector, nullable=False) for site in sites]
    return pa.schema(fields, {"steering_core": json.dumps(metadata, sort_keys=True)})


def cache_activations(
    lm: LanguageModel,
    examples: pd.DataFrame,
    sites: Sequence[Site],
    path: str | Path,
    *,
    max_tokens: int,
    batch_tokens: int,
    shard: int = 0,
    shards: int = 1,
    positions: Literal["last", "all"] = "last",
    chat_template: bool = False,
    metadata: dict[str, Any] | None = None,
) -> int:
    """Write the residual stream at every site, centred where the SAE of the site needs it.

    The examples are sorted by length, and each shard takes every ``shards``-th of them. A batch
    holds texts of similar length. A row group has ``GROUP_ROWS`` rows, so the file does not depend
    on the batches. A second thread copies from the device, checks, compresses and writes during
    the next forward passes. Peak memory is one batch, the queue of residuals (``QUEUE_BYTES``, or
    one larger batch), one row group, the texts, and 4 bytes per token.

    Args:
        lm: the model.
        examples: ``example_id`` and ``text``.
        sites: to cache; their SAEs must agree on BOS.
        path: Parquet file to write.
        max_tokens: longer texts are cut, BOS included.
        batch_tokens: tokens of a forward pass, with padding.
        shard: which share of the examples, from 0.
        shards: number of shares.
        positions: the last token of a text, or every token.
        chat_template: read each text as the user's turn of the tokenizer's chat template.
        metadata: stored in the file, as JSON.

    Returns:
        The number of rows written.

    Raises:
        DataError: if a residual is NaN or infinite, naming the example and the site.

    """
    if len({site.prepend_bos for site in sites}) != 1:
        raise DataError("the SAEs of the cached layers disagree on BOS: cache them apart.")
    bos = sites[0].prepend_bos
    tokens = tokenize_many(
        lm.tokenizer,
        examples["text"],
        prepend_bos=bos,
        max_tokens=max_tokens,
        chat_template=chat_template,
    )
    ids = examples["example_id"].array
    schema = activation_schema(sites, lm.shape.d_model, metadata or {})
    context = lm.shape.context
    mine = np.argsort(tokens.lengths, kind="stable")[shard::shards]
    cuts = batch_cuts(padded_widths(tokens.lengths[mine], context), batch_tokens)
    written = 0
    n_tokens = int(tokens.lengths[mine].sum())
    with (
        atomic_path(path) as temporary,
        _background_writer(temporary, schema) as write,
        counter(n_tokens, "caching activations", unit="tokens") as tick,
    ):
        for start, end in pairwise(cuts):
            batch = mine[start:end]
            padded = pad(
                [tokens[i] for i in batch],
                lm.tokenizer,
                side="right",
                prepend_bos=bos,
                context=context,
            )
            # Compute positions on the CPU first, to avoid a GPU sync.
            row, column = at = _positions(padded.mask, positions)
            raw = read_residuals(lm, sites, padded.ids, padded.mask, at)
            names = ids.take(batch[row.numpy()]).tolist()
            size = sum(residual.nbytes for residual in raw.values())
            write(partial(_record, schema, sites, names, column, padded.ids[at], raw), size)
            written += len(names)
            tick(int(tokens.lengths[batch].sum()))
    log.info("%d rows of %d sites in %s", written, len(sites), path)
    return written


def _positions(
    mask: Bool[torch.Tensor, "batch seq"], which: Literal["last", "all"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and column of every token to keep in a right-padded batch."""
    if which == "all":
        return mask.nonzero(as_tuple=True)
    return torch.arange(len(mask)), mask.sum(dim=1) - 1


def _record(
    schema: pa.Schema,
    sites: Sequence[Site],
    names: list[str],
    position: Int[torch.Tensor, " n"],
    token: Int[torch.Tensor, " n"],
    raw: dict[str, Float[torch.Tensor, "n d_model"]],
) -> pa.RecordBatch:
    """Return the table rows of a batch. ``raw`` may still be on the device."""
    columns: list[pa.Array] = [
        pa.array(names, pa.string()),
        pa.array(position.numpy(), pa.int32()),
        pa.array(token.numpy(), pa.int32()),
        pa.array(np.ones(len(names), dtype=bool)),
    ]
    # One block for all sites, as in `read_residuals`.
    block = np.empty((len(sites), *raw[sites[0].hook_name].shape), dtype=np.float32)
    for seen, site in zip(block, sites, strict=True):
        seen[:] = site.view(raw[site.hook_name].float().cpu().numpy())
        _refuse_nonfinite(seen, site, names)
        flat = pa.array(seen.ravel())
        columns.append(
            pa.FixedSizeListArray.from_arrays(flat, type=schema.field(len(columns)).type)
        )
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def _background_writer(
    path: Path, schema: pa.Schema
) -> Iterator[Callable[[Callable[[], pa.RecordBatch], int], None]]:
    """Yield a function that builds and writes a batch of a given size in a second thread.

    The function waits while the batches in flight and this one exceed ``QUEUE_BYTES``. A single
    larger batch is allowed. An error of the thread is raised by the next call, or at the end.
    """
    pending: deque[tuple[Future, int]] = deque()
    held: list[pa.RecordBatch] = []

    def settle(most: int) -> None:
        while pending and (pending[0][0].done() or sum(size for _, size in pending) > most):
            pending.popleft()[0].result()

    with (
        pq.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=False, write_page_checksum=True
        ) as writer,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):

        def work(make: Callable[[], pa.RecordBatch]) -> None:
            held.append(make())
            ready = pa.Table.from_batches(held, schema)
            whole = len(ready) - len(ready) % GROUP_ROWS
            if whole:
                writer.write_table(ready.slice(0, whole), row_group_size=GROUP_ROWS)
                # A copy, since a slice would hold the memory of the whole batch.
                held[:] = ready.take(np.arange(whole, len(ready))).to_batches()

        def write(make: Callable[[], pa.RecordBatch], size: int) -> None:
            settle(QUEUE_BYTES - size)
            pending.append((pool.submit(work, make), size))

        yield write
        settle(-1)
        if held:
            writer.write_table(pa.Table.from_batches(held, schema), row_group_size=GROUP_ROWS)


def _refuse_nonfinite(
    residuals: Float[np.ndarray, "n d_model"], site: Site, names: list[str]
) -> None:
    bad = ~np.isfinite(residuals).all(axis=1)
    if bad.any():
        raise DataError(
            f"activations at {site.hook_name} are NaN or infinite for {int(bad.sum())} rows, the "
            f"first is {names[int(bad.argmax())]}: use dtype float32, or bfloat16 instead of "
            "float16; in float32 the model's weights are damaged: replace them."
        )
