"""Answer the training rows and accumulate statistics of the features of all layers, in one pass."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steering_core.config.model import Model
from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.answers import Session
from steering_core.corrsteer.capture import (
    CapturedBatches,
    Encoder,
    Reader,
    feature_reader,
    raw_reader,
)
from steering_core.corrsteer.scores import PooledStatistic, snapshot
from steering_core.errors import ModelError
from steering_core.models.sae_source import pinned_sae
from steering_core.models.site import Site
from steering_core.models.sparse_autoencoder import load_encoder
from steering_core.progress import progress

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selected:
    """The results of selection.

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
    statistics: Sequence[PooledStatistic],
    d_model: int,
) -> list[Reader]:
    """Return a reader for each layer and space that the statistics need.

    Raises:
        ModelError: if features are wanted and a layer has no SAE.
    """
    spaces = {statistic.space for statistic in statistics}
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
    session: Session,
    rows: pd.DataFrame,
    readers: Sequence[Reader],
    statistics: Sequence[PooledStatistic],
    *,
    histograms: Iterable[PooledStatistic] = (),
    snapshots: Sequence[int] = (),
    published_mask: bool = False,
) -> Selected:
    """Answer ``rows`` and accumulate every statistic at every reader's layer.

    Only the answers of a batch and the accumulated sums are kept.

    Args:
        session: the model and how it answers, the same as in evaluation.
        rows: training rows, in random order.
        readers: what to read where.
        statistics: what to accumulate.
        histograms: statistics that need mutual information.
        snapshots: numbers of rows, the first of the table, after which to note the best features.
        published_mask: whether ``mask: all`` is the published code's mask.

    Raises:
        ModelError: if the model's logits are NaN or infinite.
    """
    sizes = {
        (reader.site.layer, statistic): reader.size
        for reader in readers
        for statistic in statistics
        if statistic.space == reader.space
    }
    accumulators = Accumulators(sizes, histograms)
    length = session.how.new_tokens if published_mask else None
    captured = CapturedBatches(session.lm, readers, statistics, length)
    due = sorted(set(snapshots))
    golds, letters = rows["gold"].tolist(), rows["letters"].tolist()
    answers: dict[int, tuple[str | None, str | None, bool]] = {}
    noted = []
    # Cut there: batches go by length, and the shortest prompts of many are no random draw.
    batches = session.complete(rows, observer=captured, cuts=due)
    for decoded, texts in progress(batches, f"selecting on {session.task.name}"):
        chosen = decoded.rows
        verdict = session.judge(texts, [golds[i] for i in chosen], [letters[i] for i in chosen])
        accumulators.update(captured.take(), verdict.success)
        answers |= zip(
            chosen, zip(texts, verdict.answer, verdict.success, strict=True), strict=True
        )
        if accumulators.n in due:
            noted.append(snapshot(accumulators))
    noted.append(snapshot(accumulators))
    found = pd.concat(noted, ignore_index=True).drop_duplicates(["n", "layer", "pooled_statistic"])
    return Selected(accumulators, _table(rows, answers), found)


def _table(
    rows: pd.DataFrame, answers: Mapping[int, tuple[str | None, str | None, bool]]
) -> pd.DataFrame:
    """Return what was answered, in the order of ``rows``."""
    text, answer, success = zip(*(answers[i] for i in range(len(rows))), strict=True)
    return (
        rows[["example_id", "gold"]]
        .assign(text=text, answer=answer, success=np.array(success), status="ok", reason="")
        .reset_index(drop=True)
    )


def shard_of(rows: pd.DataFrame, shard: int, shards: int) -> pd.DataFrame:
    """Return the rows of a shard; the shards' sizes differ by one at most."""
    first, last = (len(rows) * i // shards for i in (shard, shard + 1))
    return rows.iloc[first:last].reset_index(drop=True)


def select_shard(
    session: Session,
    rows: pd.DataFrame,
    model: Model,
    resources: dict[str, Any],
    settings: "CorrSteerSettings",
    *,
    statistics: Sequence[str],
    histograms: Sequence[str],
    shard: int,
) -> Selected:
    """Answer a shard of the training rows and accumulate the statistics at every layer.

    Args:
        session: the model and how it answers.
        rows: all training rows, in random order.
        model: whose SAEs are read.
        resources: what was fetched.
        settings: ``shards, snapshots, published_mask``.
        statistics: what to accumulate, as text.
        histograms: statistics that need mutual information.
        shard: which of the shards, counted from 0.

    Raises:
        ModelError: if a layer has no SAE.
    """
    wanted = [PooledStatistic.parse(text) for text in statistics]
    own = shard_of(rows, shard, settings.shards)
    later = [n for n in settings.snapshots if len(own) < n < len(rows)]
    if shard == 0 and later:
        log.warning(
            "snapshots after %s samples are not in the first of %d shards: convergence.csv has "
            "the end of each shard instead.",
            ", ".join(map(str, later)),
            settings.shards,
        )
    encoders = {}
    if any(statistic.space == "features" for statistic in wanted):
        source = pinned_sae(model, resources)
        encoders = {
            layer: load_encoder(source, layer, session.lm.device) for layer in session.sites
        }
    return select(
        session,
        own,
        make_readers(encoders, session.sites, wanted, session.lm.shape.d_model),
        wanted,
        histograms=[PooledStatistic.parse(text) for text in histograms],
        snapshots=settings.snapshots,
        published_mask=settings.published_mask,
    )
