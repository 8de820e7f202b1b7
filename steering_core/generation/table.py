"""The table of generated texts: a row per (strength, prompt)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.generation.generate import Sampling, generate
from steering_core.generation.steering import Positions
from steering_core.methods.solutions import Interventions, solved
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.progress import progress
from steering_core.storage.atomic import atomic_path

SCHEMA = pa.schema(
    [
        pa.field("method", pa.string()),
        pa.field("strength_index", pa.int32()),
        pa.field("strength_name", pa.string()),
        pa.field("strength", pa.float64()),
        pa.field("example_id", pa.string()),
        pa.field("status", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_tokens", pa.list_(pa.int32())),
        pa.field("new_tokens", pa.list_(pa.int32())),  # null without a solution
        pa.field("text", pa.string()),  # the completion alone; null without a solution
    ]
)


def generate_method(
    lm: LanguageModel,
    prompts: pd.DataFrame,
    interventions: Interventions,
    site: Site,
    sampling: Sampling,
    *,
    positions: Positions,
    max_tokens: int,
    batch_size: int,
) -> pd.DataFrame:
    """Continue every prompt at every strength of a method.

    A prompt whose program has no solution is not continued: its text is missing and its status
    says why.
    """
    ids = prompts["example_id"].tolist()
    tokens = tokenize(
        lm.tokenizer, prompts["text"].tolist(), prepend_bos=site.prepend_bos, max_tokens=max_tokens
    )
    frames = []
    for index in progress(interventions.points(), f"generating with {interventions.method}"):
        rows = interventions.at(index, ids)
        has = np.flatnonzero(solved(rows))
        vectors = interventions.vectors(rows.iloc[has])
        texts: list[list[int] | None] = [None] * len(rows)
        if len(has):
            made = generate(
                lm,
                [tokens[i] for i in has],
                [ids[i] for i in has],
                sampling,
                site=site,
                vectors=vectors if np.any(vectors) else None,
                positions=positions,
                batch_size=batch_size,
            )
            for i, new in zip(has, made, strict=True):
                texts[i] = new
        frame = rows[
            ["method", "strength_index", "strength_name", "strength", "example_id", "status"]
        ].copy()
        frame["prompt"] = prompts["text"].to_numpy()
        frame["prompt_tokens"] = tokens
        frame["new_tokens"] = texts
        frame["text"] = [
            None if new is None else lm.tokenizer.decode(new, skip_special_tokens=True)
            for new in texts
        ]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def write_generations(generations: pd.DataFrame, path: str | Path) -> None:
    """Write the table as Parquet."""
    table = pa.Table.from_pandas(generations, schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
