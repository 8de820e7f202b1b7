"""The table of generated texts: a row per (strength, prompt)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steering_core.generation.adaptive import AdaptiveSolver
from steering_core.generation.generate import Sampling, continuations
from steering_core.generation.plan import plan_for
from steering_core.generation.steering import Positions
from steering_core.methods.interventions import Interventions
from steering_core.methods.status import solved
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.progress import counter
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
        # Of a program solved anew at every position, else null: positions that were to be
        # steered, and those of them that have no solution, where nothing was added.
        pa.field("steered_positions", pa.int32()),
        pa.field("unsolved_positions", pa.int32()),
    ]
)
_OF_ROWS = ("method", "strength_index", "strength_name", "strength", "example_id", "status")
_COUNTS = ("steered_positions", "unsolved_positions")
_OF_TEXTS = ("new_tokens", "text", *_COUNTS)


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
    solver: AdaptiveSolver | None = None,
) -> pd.DataFrame:
    """Continue every prompt at every strength of a method, all strengths in the same batches.

    A prompt whose program has no solution (at its last token, if it is solved at every position)
    is not continued: its text is missing and its status says why.

    Args:
        lm: the model.
        prompts: columns ``example_id`` and ``text``.
        interventions: of the method.
        site: where to steer.
        sampling: how tokens are drawn.
        positions: which prompt positions are steered besides every new token.
        max_tokens: at which prompts are cut.
        batch_size: prompts at a time, each at every strength.
        solver: of an adaptive method.

    Returns:
        The columns of :data:`SCHEMA`.

    """
    ids = prompts["example_id"].tolist()
    tokens = tokenize(
        lm.tokenizer, prompts["text"].tolist(), prepend_bos=site.prepend_bos, max_tokens=max_tokens
    )
    points = interventions.points()
    rows = pd.concat([interventions.at(index, ids) for index in points], ignore_index=True)
    texts = rows[[*_OF_ROWS]].assign(
        prompt=prompts["text"].tolist() * len(points), prompt_tokens=tokens * len(points)
    )
    has = np.flatnonzero(solved(rows))
    columns: dict[str, list] = {name: [None] * len(rows) for name in _OF_TEXTS}
    if len(has):
        chosen = rows.iloc[has]
        plan = plan_for(solver, interventions, chosen)
        vectors = interventions.vectors(chosen) if plan is None else None
        with counter(len(has), f"generating with {interventions.method}") as tick:
            made = continuations(
                lm,
                texts["prompt_tokens"].iloc[has].tolist(),
                chosen["example_id"].tolist(),
                sampling,
                site=site,
                vectors=vectors if vectors is not None and np.any(vectors) else None,
                adaptive=plan,
                positions=positions,
                batch_size=batch_size * len(points),
                tick=tick,
            )
        for k, i in enumerate(has):
            columns["new_tokens"][i] = made.tokens[k]
            columns["text"][i] = lm.tokenizer.decode(made.tokens[k], skip_special_tokens=True)
            if plan is not None:
                columns["steered_positions"][i] = int(made.steered[k])
                columns["unsolved_positions"][i] = int(made.unsolved[k])
    counts = {name: pd.array(columns.pop(name), dtype="Int32") for name in _COUNTS}
    return texts.assign(**columns, **counts)[SCHEMA.names]


def write_generations(generations: pd.DataFrame, path: str | Path) -> None:
    """Write the table as Parquet."""
    table = pa.Table.from_pandas(generations, schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
