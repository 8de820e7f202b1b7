"""The table of features: chosen by correlation, and by their use in the programs."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.correlation import StreamingCorrelation
from steering_core.statistics.moments import CorrelationResult
from steering_core.tables.columns import column_names
from steering_core.tables.features import feature_table

D_SAE, D_MODEL = 12, 5


@dataclass(frozen=True)
class World:
    statistics: CorrelationResult
    probe: LinearProbe
    decoder: np.ndarray
    features: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 2).astype(float)
    features = rng.random((60, D_SAE)) * (rng.random((60, D_SAE)) < 0.5)
    features[:, 4] += labels
    features[:, 9] -= 0.5 * labels
    features[:, 2] = 0.0  # never active
    stream = StreamingCorrelation(D_SAE)
    stream.update_dense(features, labels)
    decoder = rng.standard_normal((D_SAE, D_MODEL))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    probe = LinearProbe(3.0 * decoder[1], 0.0, (0, 1), 1.0, 0.9, (0.9, 0.9), 0.0, False, 60)
    return World(stream.result(), probe, decoder, features, labels)


def make(world: World, share: np.ndarray, neuronpedia: str | None = None, top: int = 3):
    return feature_table(
        world.statistics, world.probe, world.decoder, share, neuronpedia, "e", top=top
    )


def test_union_of_both_orders_by_correlation(world: World):
    share = np.zeros(D_SAE)
    share[[7, 4]] = 0.75, 0.25
    table = make(world, share)
    strength = np.abs(np.nan_to_num(world.statistics.correlation))
    assert set(table["feature"]) == {*np.argsort(-strength)[:3].tolist(), 7, 4}
    assert table["correlation"].abs().is_monotonic_decreasing
    assert table["feature"].iloc[0] == 4
    assert list(table) == column_names("features")
    assert table["experiment"].eq("e").all()
    assert table.set_index("feature").loc[7, "coefficient_share"] == 0.75


def test_values_are_those_of_the_feature(world: World):
    table = make(world, np.full(D_SAE, 1 / D_SAE), top=D_SAE).set_index("feature")
    unit = world.probe.weight_vector / np.linalg.norm(world.probe.weight_vector)
    for feature, row in table.iterrows():
        column = world.features[:, feature]
        assert row["active_fraction"] == pytest.approx((column != 0).mean())
        assert row["mean_positive"] == pytest.approx(column[world.labels == 1].mean())
        assert row["mean_negative"] == pytest.approx(column[world.labels == 0].mean())
        assert row["probe_alignment"] == pytest.approx(world.decoder[feature] @ unit)
        if feature != 2:
            want = np.corrcoef(column, world.labels)[0, 1]
            assert row["correlation"] == pytest.approx(want)
    assert table.loc[1, "probe_alignment"] == pytest.approx(1.0)
    assert np.isnan(table.loc[2, "correlation"])  # a share, and no correlation: NaN, not zero


def test_nothing_to_show_is_an_empty_table(world: World):
    silent = replace(world.statistics, correlation=np.full(D_SAE, np.nan))
    table = feature_table(silent, world.probe, world.decoder, np.zeros(D_SAE), None, "e")
    assert table.empty
    assert "coefficient_share" in table


def test_links_only_where_the_sae_has_an_id(world: World):
    share = np.zeros(D_SAE)
    assert make(world, share)["url"].isna().all()
    linked = make(world, share, "gpt2-small/7-res-jb")
    for row in linked.itertuples():
        assert row.url.startswith("https://")
        assert row.url.endswith(f"gpt2-small/7-res-jb/{row.feature}")
    assert pd.Series(linked["url"]).is_unique
