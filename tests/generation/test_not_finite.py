"""Logits that are NaN or infinite: the text is missing, whoever asks, and never a token or number.

A vector that is too long for float16 makes them so; the same vector in float32 does not.
"""

import copy
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steered_generation import continuations, divergence, generate_method, text_divergence

from steering_core.errors import ModelError
from steering_core.generation.adaptive import AdaptiveSolver, RowPrograms
from steering_core.generation.sampling import FirstNotFinite, Sampling
from steering_core.generation.table import SCHEMA
from steering_core.metrics.judges import ClassJudge
from steering_core.metrics.judging import judge_texts
from steering_core.models.residual_stream import last_token_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import tokenize
from steering_core.optimize.path import SteeringPath
from steering_core.storage.parquet import write_parquet

SITE = Site(2, "post", False, True)
NAMES = ["a", "b", "c", "d"]
HOWS = {"greedy": Sampling(5, None), "drawn": Sampling(5, 1.0, 0.9, 0)}
TEXTS = ["w1 w2 w3", "w7", "w4 w5", "w9 w8 w7 w6"]
#: What is added to each prompt: nothing, little, and more than float16 holds.
SIZES = np.array([0.0, 1.0, 1e6, 3.0])


def in_dtype(lm, dtype):
    return replace(lm, model=copy.deepcopy(lm.model).to(dtype))


@pytest.fixture(scope="module")
def half(tiny):
    return in_dtype(tiny, torch.float16)


@pytest.fixture(scope="module")
def prompts(tiny):
    return tokenize(tiny.tokenizer, TEXTS, prepend_bos=True)


@pytest.fixture(scope="module")
def vectors():
    direction = np.random.default_rng(0).standard_normal(32)
    return SIZES[:, None] * direction / np.linalg.norm(direction)


@pytest.fixture(params=HOWS)
def how(request):
    return HOWS[request.param]


@pytest.mark.parametrize("positions", ["last", "all"])
def test_a_text_whose_logits_overflow_is_missing_and_the_others_are_as_without_it(
    half, prompts, vectors, how, positions
):
    given_ = {"site": SITE, "positions": positions}
    made = continuations(half, prompts, NAMES, how, vectors=vectors, **given_)
    assert [row is None for row in made.tokens] == [False, False, True, False]
    assert made.steered[2] == 0
    kept = [0, 1, 3]
    alone = continuations(
        half, [prompts[i] for i in kept], [NAMES[i] for i in kept], how, vectors=vectors[kept],
        **given_,
    )  # fmt: skip
    assert [made.tokens[i] for i in kept] == alone.tokens


def test_no_text_is_missing_where_the_dtype_holds_the_vector(tiny, prompts, vectors, how):
    for lm in (tiny, in_dtype(tiny, torch.bfloat16)):
        assert all(continuations(lm, prompts, NAMES, how, site=SITE, vectors=vectors).tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_dtypes_overflow_too(tiny, prompts, vectors, how, dtype):
    """A norm makes zeros of what its square cannot hold, and zeros are no NaN."""
    lm = in_dtype(tiny, dtype)
    made = continuations(lm, prompts, NAMES, how, site=SITE, vectors=1e25 * vectors)
    assert [row is None for row in made.tokens] == [False, True, True, True]


def test_a_program_that_is_solved_at_every_position_and_overflows(half, prompts, how):
    rng = np.random.default_rng(1)
    decoder, weight = rng.standard_normal((40, 32)), 0.4 * rng.standard_normal(32)
    path = SteeringPath.fit(decoder, weight).extend(np.inf)
    solver = AdaptiveSolver(path, weight, 0.0, "qp", SITE, half.device)
    tau, lam = np.array([1.0, 1e7, 2.0, 1e7]), np.ones(4)
    made = continuations(
        half, prompts, NAMES, how, site=SITE, adaptive=RowPrograms(solver, tau, lam)
    )
    assert [row is None for row in made.tokens] == [False, True, False, True]
    assert made.unsolved.tolist() == [0] * 4


@pytest.fixture(scope="module")
def damaged(half):
    lm = in_dtype(half, torch.float16)
    lm.model.get_parameter("model.layers.1.mlp.down_proj.weight").fill_(float("nan"))
    return lm


def test_the_unsteered_model_must_not_overflow(damaged, prompts, how):
    message = r"Llama.* for 4 of 4 prompts without any steering, in float16: set `dtype: bfloat16`"
    with pytest.raises(ModelError, match=message):
        continuations(damaged, prompts, NAMES, how, site=SITE)
    with pytest.raises(ModelError, match="its logits are NaN"):
        divergence(damaged, prompts, [[5]] * 4, site=SITE, vectors=None)
    with pytest.raises(ModelError, match=r"hook_resid_post are NaN or infinite in float16"):
        last_token_residuals(damaged, TEXTS, SITE, max_tokens=20, batch_tokens=100)


class Fixed:
    """Interventions of one method: a vector for each prompt at two strengths."""

    method = "caa_mean_diff"

    def __init__(self, vectors):
        self._vectors = vectors

    def points(self):
        return [0, 1]

    def at(self, index, ids):
        rows = pd.DataFrame({"example_id": ids, "row": [NAMES.index(name) for name in ids]})
        return rows.assign(
            method=self.method, strength_index=index, strength_name="alpha",
            strength=[0.5, 2.0][index], status="fixed",
        )  # fmt: skip

    def vectors(self, rows):
        # The first strength is none at all.
        return rows["strength_index"].to_numpy()[:, None] * self._vectors[rows["row"]]


@pytest.fixture(scope="module")
def generations(half, vectors):
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("steering_core.generation.table")
    log.addHandler(handler)
    frame = generate_method(
        half, pd.DataFrame({"example_id": NAMES, "text": TEXTS}), Fixed(vectors), SITE,
        HOWS["greedy"], positions="last", max_tokens=20, batch_size=4,
    )  # fmt: skip
    log.removeHandler(handler)
    return frame, messages


def test_the_table_records_which_text_was_lost_and_the_log_where(generations, tmp_path):
    table, messages = generations
    lost = table["status"] == "not_finite"
    assert table.loc[lost, ["strength_index", "example_id"]].to_numpy().tolist() == [[1, "c"]]
    assert table.loc[lost, ["text", "new_tokens"]].isna().all(axis=None)
    assert table.loc[~lost, ["text", "new_tokens"]].notna().all(axis=None)
    assert len(messages) == 1
    for part in ("caa_mean_diff", "alpha 2", "1 prompts", "blocks.2.hook_resid_post", "float16"):
        assert part in messages[0]
    write_parquet(tmp_path / "g.parquet", table, SCHEMA)
    assert pd.read_parquet(tmp_path / "g.parquet").columns.tolist() == SCHEMA.names


class Certain(ClassJudge):
    """Finds every text in class 1; or says NaN."""

    def __init__(self, score=1.0):
        self._answer = score

    def _score(self, texts):
        return np.full(len(texts), self._answer)


def test_a_judge_that_says_nan_is_no_judge():
    with pytest.raises(ModelError, match="scores are NaN"):
        Certain(np.nan).score(["a word"])
    assert np.isnan(Certain(np.nan).score([""])).all()


def test_a_lost_text_has_no_kl_and_no_verdict(half, generations, vectors):
    table, _ = generations
    frame = text_divergence(
        half, table, Fixed(vectors), SITE, positions="last", batch_tokens=100
    ).set_index(["strength_index", "example_id"])
    assert np.isnan(frame.loc[(1, "c"), "kl_sum"]) and frame.loc[(1, "c"), "n_tokens"] == 0
    others = frame.drop((1, "c"))
    assert np.isfinite(others[["kl_sum", "base_nll_sum"]]).all(axis=None)
    assert (others["n_tokens"] > 0).all()
    judged = judge_texts(table, Certain(), 1)
    lost = (table["status"] == "not_finite").to_numpy()
    assert judged.loc[lost, ["score", "judged"]].isna().all(axis=None)
    assert judged.loc[~lost, "judged"].notna().all()


def test_a_kl_that_is_not_finite_makes_the_text_a_missing_one(half, generations, vectors, caplog):
    """As where a pass over the whole text overflows, and the passes of generation did not."""
    table, _ = generations
    frame = text_divergence(
        half, table.iloc[4:], Fixed(1e6 * vectors), SITE, positions="last", batch_tokens=100
    )
    assert frame["n_tokens"].gt(0).tolist() == [True, False, False, False]
    assert frame["kl_sum"].isna().tolist() == [False, True, True, True]
    assert "caa_mean_diff, alpha 2: the KL or surprise of 2 texts" in caplog.text


NUMBERS = st.sampled_from([-np.inf, np.inf, np.nan, -1.0, 0.0, 7.0])


@given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_the_first_step_without_a_largest_logit_is_found(steps):
    noted = FirstNotFinite(1, 4, torch.device("cpu"))
    for k, logits in enumerate(steps):
        scores = torch.tensor([logits])
        assert noted(torch.zeros(1, 4 + k), scores) is scores
    bad = [k for k, logits in enumerate(steps) if not np.isfinite(np.max(logits))]
    for length in range(len(steps) + 1):
        assert noted.finite([length]) == [not any(k < length for k in bad)]
