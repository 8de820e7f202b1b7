"""Answer the training rows and accumulate what the layers did, in one pass."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.capture import (
    Captured,
    Encoder,
    Reader,
    capture,
    feature_reader,
    raw_reader,
)
from steering_core.corrsteer.decoding import Decoding, decode
from steering_core.corrsteer.published_mask import FirstPositions, capture_published
from steering_core.corrsteer.scores import snapshot
from steering_core.corrsteer.tasks import Task
from steering_core.corrsteer.variant import Variant
from steering_core.errors import ModelError
from steering_core.generation.generate import require_finite
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site
from steering_core.models.tokens import TokenBatch
from steering_core.progress import progress


@dataclass(frozen=True)
class Selected:
    """What selection leaves behind.

    Attributes:
        accumulators: the statistics.
        answers: ``example_id, success`` and the rest of what was answered, a row per sample.
        snapshots: best feature of every layer after so many samples.
    """

    accumulators: Accumulators
    answers: pd.DataFrame
    snapshots: pd.DataFrame


def make_readers(
    encoders: Mapping[int, Encoder],
    sites: Mapping[int, Site],
    variants: Sequence[Variant],
    d_model: int,
) -> list[Reader]:
    """Return a reader for each layer and space that the variants need.

    Raises:
        ModelError: if features are wanted and a layer has no SAE.
    """
    spaces = {variant.space for variant in variants}
    missing = sorted(set(sites) - set(encoders))
    if "features" in spaces and missing:
        raise ModelError(f"there is no SAE for the layers {missing}: leave them out of layers.")
    readers = []
    for layer, site in sorted(sites.items()):
        if "features" in spaces:
            readers.append(feature_reader(encoders[layer], site))
        if "raw" in spaces:
            readers.append(raw_reader(site, d_model))
    return readers


def select(
    lm: LanguageModel,
    rows: pd.DataFrame,
    task: Task,
    how: Decoding,
    classifier: Any,
    readers: Sequence[Reader],
    variants: Sequence[Variant],
    *,
    histograms: Iterable[Variant] = (),
    snapshots: Sequence[int] = (),
    reasoned: bool = False,
    published_mask: bool = False,
) -> Selected:
    """Answer ``rows`` and accumulate every variant at every reader's layer.

    Nothing is kept of a batch but its answers and what it adds to the accumulators.

    Args:
        lm: the model.
        rows: training rows, in random order.
        task: judges the answers.
        how: decoding, the same as in evaluation.
        classifier: what the task's success function loaded.
        readers: what to read where.
        variants: what to accumulate.
        histograms: variants that need mutual information.
        snapshots: numbers of rows, the first of the table, after which to note the best features.
        reasoned: whether the prompts ask for reasoning.
        published_mask: whether ``mask: all`` is what the published code makes of it.

    Raises:
        ModelError: if the model's logits are NaN or infinite.
    """
    sizes = {
        (reader.site.layer, variant): reader.size
        for reader in readers
        for variant in variants
        if variant.space == reader.space
    }
    accumulators = Accumulators(sizes, histograms)
    current: list[Captured | FirstPositions] = []

    def around(batch: TokenBatch, chosen: list[int]) -> AbstractContextManager:
        if published_mask:
            first = capture_published(lm, readers, variants, batch, longest=how.new_tokens)
            return kept(first, current)
        return kept(capture(lm, readers, variants, batch), current)

    due = sorted(set(snapshots))
    golds, letters = rows["gold"].tolist(), rows["letters"].tolist()
    answers: dict[int, tuple[str, str | None, bool]] = {}
    noted = []
    # Cut there: batches go by length, and the shortest prompts of many are no random draw.
    batches = decode(lm, rows, how, around, cuts=due)
    for chosen, texts in progress(batches, f"selecting on {task.name}"):
        require_finite(lm, texts)
        verdict = task.success.judge(
            texts,
            [golds[i] for i in chosen],
            [letters[i] for i in chosen],
            classifier,
            reasoned=reasoned,
        )
        accumulators.update(current.pop(), verdict.success)
        answers |= zip(
            chosen, zip(texts, verdict.answer, verdict.success, strict=True), strict=True
        )
        if accumulators.n in due:
            noted.append(snapshot(accumulators))
    noted.append(snapshot(accumulators))
    found = pd.concat(noted, ignore_index=True).drop_duplicates(["n", "layer", "variant"])
    return Selected(accumulators, _table(rows, answers), found)


def _table(rows: pd.DataFrame, answers: Mapping[int, tuple[str, str | None, bool]]) -> pd.DataFrame:
    """Return what was answered, in the order of ``rows``."""
    text, answer, success = zip(*(answers[i] for i in range(len(rows))), strict=True)
    return (
        rows[["example_id", "gold"]]
        .assign(text=text, answer=answer, success=np.array(success), status="ok", reason="")
        .reset_index(drop=True)
    )


@contextmanager
def kept(block: AbstractContextManager, place: list) -> Iterator[None]:
    """Enter ``block`` and leave what it captured in ``place``; nothing if it failed."""
    with block as captured:
        yield
    place.append(captured)
