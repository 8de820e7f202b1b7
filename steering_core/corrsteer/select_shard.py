"""The selection of one shard of the training rows, with the SAEs that its variants need."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from steering_core.config.model import Model
from steering_core.corrsteer.run import Run
from steering_core.corrsteer.selection import Selected, make_readers, select
from steering_core.corrsteer.variant import Variant
from steering_core.models.feature_encoder import load_encoder
from steering_core.models.pins import pinned_sae

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import CorrSteerSettings

log = logging.getLogger(__name__)


def shard_of(rows: pd.DataFrame, shard: int, shards: int) -> pd.DataFrame:
    """Return the rows of a shard; the shards' sizes differ by one at most."""
    first, last = (len(rows) * i // shards for i in (shard, shard + 1))
    return rows.iloc[first:last].reset_index(drop=True)


def select_shard(
    run: Run,
    rows: pd.DataFrame,
    model: Model,
    resources: dict[str, Any],
    given: "CorrSteerSettings",
    *,
    variants: Sequence[str],
    histograms: Sequence[str],
    shard: int,
) -> Selected:
    """Answer a shard of the training rows and accumulate the variants at every layer.

    Args:
        run: the model and how it answers.
        rows: all training rows, in random order.
        model: whose SAEs are read.
        resources: what was fetched.
        given: ``shards, snapshots, published_mask``.
        variants: what to accumulate, as text.
        histograms: variants that need mutual information.
        shard: which of the shards, counted from 0.

    Raises:
        ModelError: if a layer has no SAE.
    """
    wanted = [Variant.parse(text) for text in variants]
    own = shard_of(rows, shard, given.shards)
    later = [n for n in given.snapshots if len(own) < n < len(rows)]
    if shard == 0 and later:
        log.warning(
            "snapshots after %s samples are not in the first of %d shards: convergence.csv has "
            "the end of each shard instead.",
            ", ".join(map(str, later)),
            given.shards,
        )
    encoders = {}
    if any(variant.space == "features" for variant in wanted):
        source = pinned_sae(model, resources)
        encoders = {layer: load_encoder(source, layer, run.lm.device) for layer in run.sites}
    return select(
        run.lm,
        own,
        run.task,
        run.how,
        run.classifier,
        make_readers(encoders, run.sites, wanted, run.lm.shape.d_model),
        wanted,
        histograms=[Variant.parse(text) for text in histograms],
        snapshots=given.snapshots,
        reasoned=run.reasoned,
        published_mask=given.published_mask,
    )
