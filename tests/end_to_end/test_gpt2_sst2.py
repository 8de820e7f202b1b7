"""An experiment as users have it, on the hub's real rows and stand-in models.

Its run is that of the tests without a network.
"""

import sys
from pathlib import Path

import pandas as pd
import pytest

from steering_core.tables.columns import validate_table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

from gpt2_run import RESULTS, finished  # noqa: E402


@pytest.fixture
def table(hub):
    return pd.read_csv(finished().directory / RESULTS / "pareto.csv")


def test_pareto_table(table):
    validate_table(table, "pareto")
    assert table["layer"].eq(7).all()


def test_steering_moves_sentiment(table):
    """The stand-in's sentiment can be steered: a weak effect means a wrong site or sign."""
    rows = table.set_index("method")
    steered = rows.loc["caa_mean_diff"]
    assert steered["classifier_rate_steered"] > steered["classifier_rate_base"] + 0.15
    assert steered["eval_flip_rate"] > 0.9
    qp = rows[(rows.index == "qp_optimal") & (rows["lam"] == 1.0)]
    assert len(qp) == 1 and qp["eval_flip_rate"].gt(0.9).all()


def test_the_independent_probe_separates_the_classes(table):
    assert not table["warnings"].fillna("").str.contains("no better than chance").any()
