"""A model whose errors have one known cause: the whole chain must find it and repair it.

The residual stream of this Llama is the embedding of the last token, unchanged by its layers. The
answer is A where the stream's component along ``CAUSE`` exceeds the one along ``RIVAL``, else B.
A is always right; half of the words lack the cause.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from corrsteer_world import SITE, session_of

from steering_core.config.corrsteer_schema import Arm, SparseMethods
from steering_core.config.model import Model, SAESource
from steering_core.config.schema import FisherSettings
from steering_core.corrsteer.answers import Decoding, Session, answer
from steering_core.corrsteer.kept_answers import validate_layers
from steering_core.corrsteer.plan import choose, make_plan
from steering_core.corrsteer.planted_feature import planted_feature
from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.selection import make_readers, select
from steering_core.corrsteer.sparse_methods import answer_sparse_method
from steering_core.corrsteer.success import ExactOption
from steering_core.corrsteer.tasks import Source, Task
from steering_core.corrsteer.training_data import fisher_of_answers
from steering_core.errors import DataError
from steering_core.models.language_model import load_language_model

CAUSE, RIVAL = 4, 9
LETTERS = ("w58", "w59")
HOW = Decoding(new_tokens=1, batch_rows=8)
TASK = Task("planted", Source("-", "-"), lambda row: None, ExactOption(), 1)
SITES = {layer: replace(SITE, layer=layer) for layer in (1, 2, 3)}
STATISTICS = [PooledStatistic(), PooledStatistic("raw")]
ARMS = {
    "corrsteer_s": Arm(strategy="single"),
    "corrsteer_a": Arm(strategy="all"),
    "corrsteer_p": Arm(strategy="pruned"),
    "spare_mi": Arm(score="mutual_information"),
    "dsg_fisher": Arm(score="fisher"),
    "caa": Arm(
        strategy="validated",
        score="contrastive",
        space="raw",
        coefficient="difference",
        per_layer="all",
        sign="both",
    ),
}
BASIS = np.linalg.qr(np.random.default_rng(3).standard_normal((32, 32)))[0].astype("f4")


class BasisSAE:
    """One feature per direction of a basis."""

    d_sae, decoder = 32, BASIS

    def encode(self, residual: torch.Tensor) -> torch.Tensor:
        return torch.relu(residual @ torch.tensor(BASIS.T) - 0.05)


@pytest.fixture(scope="module")
def lm(tiny_model):
    loaded = load_language_model(
        Model(id=str(tiny_model), sae=SAESource(path="unused/layer_{layer}")), "cpu"
    )
    rng = np.random.default_rng(0)
    weights = 0.3 * rng.standard_normal((64, 32))
    weights[:, CAUSE], weights[:, RIVAL] = 0.0, 1.0
    weights[4:34, CAUSE] = 2.0  # w0 to w29
    head = np.zeros((64, 32))
    tokens = loaded.tokenizer.convert_tokens_to_ids(list(LETTERS))
    head[tokens[0], CAUSE] = head[tokens[1], RIVAL] = 1.0
    with torch.no_grad():
        for block in loaded.blocks:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        loaded.model.model.embed_tokens.weight.copy_(torch.tensor(weights @ BASIS))
        loaded.model.lm_head.weight.copy_(torch.tensor(head @ BASIS))
    return loaded


def rows(n, seed, split):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "example_id": [f"{split}:{i}" for i in range(n)],
            "prompt": [f"w{a} w{b}" for a, b in rng.integers(0, 58, (n, 2))],
            "gold": LETTERS[0],
            "letters": [list(LETTERS)] * n,
        }
    )


@pytest.fixture(scope="module")
def chain(lm):
    saes = dict.fromkeys(SITES, BasisSAE())
    readers = make_readers(saes, SITES, STATISTICS, 32)
    found = select(
        session_of(lm, HOW, TASK),
        rows(160, 0, "train"),
        readers,
        STATISTICS,
        histograms=[PooledStatistic()],
    )
    validation, test = rows(40, 1, "validation"), rows(60, 2, "test")

    answers, plans = {"unsteered": answer(lm, test, TASK, HOW, None)}, {}
    for name, arm in ARMS.items():
        plan = plans[name] = make_plan(
            arm,
            found.accumulators,
            SITES,
            lambda layer, features: BASIS[features],
            task_pooling="max",
            keep=10,
            seed=0,
        )
        table = (
            validate_layers(session_of(lm, HOW, TASK), validation, plan)
            if arm.strategy in ("pruned", "validated")
            else None
        )
        layers = choose(arm.strategy, plan, table).layers
        answers[name] = answer(lm, test, TASK, HOW, None, intervention=plan.intervention(layers))
    return found, plans, answers


def test_the_world_is_as_described(chain):
    found, _, answers = chain
    last = answers["unsteered"]["prompt"].str.split().str[-1].str[1:].astype(int)
    assert (answers["unsteered"]["success"] == (last < 30)).all()
    assert 0.3 < found.answers["success"].mean() < 0.7


@pytest.mark.parametrize("name", [name for name in ARMS if name != "caa"])
def test_every_score_finds_the_cause_at_every_layer(chain, name):
    best = chain[1][name].features.query("rank == 0")
    assert best["feature"].tolist() == [CAUSE] * 3
    if ARMS[name].score == "pearson":
        assert (best["score"] > 0.999).all()


def test_coefficient_is_the_level_of_the_cause_on_successes(chain):
    best = chain[1]["corrsteer_a"].features.query("rank == 0")
    np.testing.assert_allclose(best["coefficient"], 1.95, rtol=1e-4)


@pytest.mark.parametrize("name", ARMS)
def test_steering_repairs_every_failure_and_breaks_nothing(chain, name):
    answers = chain[2]
    table = result_table("planted", {0: answers}, n_resamples=100)
    row = table[(table["method"] == name) & (table["seed"] == "0")].iloc[0]
    assert row["accuracy"] == 1.0 > row["baseline_accuracy"]
    assert row["ser"] == 0.0 and row["positive"] >= 15 and row["mcnemar_p"] < 1e-3
    wanted = {"corrsteer_s": "1", "corrsteer_a": "1 2 3", "corrsteer_p": "1 2 3"}
    assert row["layers"] == wanted.get(name, row["layers"])


@pytest.mark.parametrize(
    "method", ["caa_mean_diff", "single_feature", "topk_features", "qp_optimal", "convex_optimal"]
)
def test_optimal_sparse_steering_repairs_them_on_the_selected_features(lm, chain, method):
    found, plans, answers = chain
    train = rows(160, 0, "train").merge(found.answers[["example_id", "success"]], on="example_id")
    found = answer_sparse_method(
        Session(lm, TASK, HOW, None, False, SITES),
        method,
        SparseMethods(tau=[2.0], epsilon=[50.0], features=5),
        plans["corrsteer_s"],
        lambda layer, features: BASIS[features],
        train,
        rows(40, 1, "validation"),
        rows(60, 2, "test"),
        seed=0,
    )
    runs = {0: {"unsteered": answers["unsteered"], method: found.answers}}
    row = result_table("e", runs, n_resamples=50).iloc[-1]
    assert row["accuracy"] > 0.95 and row["negative"] == 0


DECLARED = {
    "uniform": {"program": "qp", "mode": "uniform", "qp_lambda": [1.0]},
    "gradient": {"program": "qp", "mode": "static", "qp_lambda": [1.0]}
    | {"concept_direction": ["mean_difference", "likelihood_gradient"]},
    "floor": {"program": "dense", "mode": "uniform"},
    "in_kl": {"program": "qp", "mode": "static", "qp_lambda": [0.1], "metric": "fisher"},
    "adaptive": {"program": "socp", "mode": "adaptive", "epsilon": [50.0], "metric": "covariance"},
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_programs_repair_them_too(lm, chain, name):
    found, plans, answers = chain
    train = rows(160, 0, "train").merge(found.answers[["example_id", "success"]], on="example_id")
    declared = {"concept_direction": "mean_difference", "tau": [2.0, 6.0, 12.0], **DECLARED[name]}
    session = Session(lm, TASK, HOW, None, False, SITES)

    def fisher(site):
        return fisher_of_answers(session, train, site, FisherSettings(texts=100), seed=0)

    found = answer_sparse_method(
        session,
        name,
        SparseMethods(methods=[], features=5, programs={name: declared}),
        plans["corrsteer_s"],
        lambda layer, features: BASIS[features],
        train.assign(worked=LETTERS[0]),
        rows(40, 1, "validation"),
        rows(60, 2, "test"),
        seed=0,
        fisher=fisher,
    )
    runs = {0: {"unsteered": answers["unsteered"], name: found.answers}}
    row = result_table("e", runs, n_resamples=50).iloc[-1]
    assert row["accuracy"] > 0.95 and row["negative"] == 0 and row["method"] == name
    assert row["strength"] in found.validation["strength"].tolist()
    assert pd.isna(row["l0_mean"]) == (name in ("floor", "adaptive"))


def test_the_demo_reads_a_feature_where_the_model_answers(lm):
    prompts = rows(90, 2, "test")
    has_cause = prompts["prompt"].str.split().str[-1].str[1:].astype(int) < 30
    prompts["sentiment"] = has_cause.astype(float)
    run = Session(lm, TASK, HOW, None, False, SITES)
    found = planted_feature(run, BasisSAE(), prompts, 2, CAUSE)
    assert (found["auc"], found["auc_success"], found["rank"]) == (1.0, 1.0, 1)
    assert found["auc_words"] == 0.5  # no word of the lexicon is in them
    assert planted_feature(run, BasisSAE(), prompts, 2, RIVAL)["auc"] < 0.6
    with pytest.raises(DataError, match="not among"):
        planted_feature(run, BasisSAE(), prompts.assign(sentiment=None), 2, CAUSE)
