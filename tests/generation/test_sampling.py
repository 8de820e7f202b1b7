"""Inverse-CDF sampling draws from the nucleus of the tempered softmax."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from steering_core.generation import sampling
from steering_core.generation.sampling import InverseCdfSampling, draws


def sample(logits, uniforms, temperature=1.0, top_p=1.0):
    """Return the token drawn for each uniform number."""
    uniforms = torch.as_tensor(uniforms, dtype=torch.float64)[:, None]
    scores = torch.as_tensor(logits).float().expand(len(uniforms), -1)
    ids = torch.zeros((len(uniforms), 4), dtype=torch.long)
    out = InverseCdfSampling(uniforms, 4, temperature, top_p)(ids, scores)
    assert (torch.isfinite(out).sum(dim=1) == 1).all()
    return out.argmax(dim=1).numpy()


def nucleus(logits, temperature, top_p):
    """Probabilities of the nucleus, renormalised, by definition."""
    p = np.exp(np.asarray(logits, dtype=np.float64) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
    keep = np.zeros(len(p), dtype=bool)
    keep[order[:size]] = True
    p = np.where(keep, p, 0)
    return p / p.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (2.0, 0.55)])
def test_distribution_is_that_of_the_nucleus(temperature, top_p):
    """Equally spaced draws give each token its share, to one part in the number of draws."""
    logits = np.random.default_rng(0).normal(size=30) * 2
    n = 20000
    tokens = sample(logits, (np.arange(n) + 0.5) / n, temperature, top_p)
    share = np.bincount(tokens, minlength=30) / n
    expected = nucleus(logits, temperature, top_p)
    np.testing.assert_allclose(share, expected, atol=1.5 / n)
    assert set(np.flatnonzero(share)) <= set(np.flatnonzero(expected))


def test_random_draws_pass_a_chi_square_test():
    logits = np.random.default_rng(1).normal(size=12)
    uniforms = draws([f"e{i}" for i in range(4000)], 1, seed=0)[:, 0].numpy()
    counts = np.bincount(sample(logits, uniforms, 1.0, 0.9), minlength=12)
    expected = nucleus(logits, 1.0, 0.9) * 4000
    inside = expected > 0
    assert counts[~inside].sum() == 0
    assert chisquare(counts[inside], expected[inside]).pvalue > 1e-3


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30),
    st.floats(0.05, 1.0),
    st.floats(0.2, 5.0),
)
@settings(max_examples=150, deadline=None)
def test_extreme_draws_stay_in_the_nucleus(logits, top_p, temperature):
    """The draw next to 1 picks the least likely token inside, 0 the most likely."""
    ends = [0.0, float(np.nextafter(1.0, 0.0))]
    first, last = sample(logits, ends, temperature, top_p)
    p = torch.softmax(torch.tensor(logits).float() / temperature, dim=-1).double()
    assert p[first] == p.max()
    # Everything strictly more likely than a token of the nucleus does not reach top_p.
    assert float(p[p > p[last]].sum()) < top_p + 1e-6


def test_sums_are_of_whole_numbers(monkeypatch):
    """Those of floats differ from call to call on a GPU."""
    own, summed = torch.Tensor.cumsum, []

    def noted(tensor, *args, **options):
        summed.append(tensor.dtype)
        return own(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "cumsum", noted)
    sample(np.zeros(4), [0.3])
    assert summed and not any(dtype.is_floating_point for dtype in summed)


@given(
    st.lists(st.integers(-6, 6), min_size=33, max_size=60),
    st.sampled_from([0.05, 0.3, 0.6, 0.9, 0.999, 1.0]),
    st.floats(0.3, 3.0),
)
@settings(max_examples=150, deadline=None)
def test_looking_at_few_tokens_first_draws_the_same(logits, top_p, temperature):
    """Logits of whole numbers have equals, at the edge of the few, too."""
    uniforms = np.linspace(0, np.nextafter(1.0, 0.0), 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_FEW", 1000)  # the whole vocabulary at once
        whole = sample(logits, uniforms, temperature, top_p)
        patch.setattr(sampling, "_FEW", 4)
        assert sample(logits, uniforms, temperature, top_p).tolist() == whole.tolist()


def test_only_rows_with_a_wide_nucleus_have_all_tokens_ordered(monkeypatch):
    monkeypatch.setattr(sampling, "_FEW", 4)
    own, ordered = torch.Tensor.sort, []

    def noted(tensor, *args, **options):
        ordered.append(tuple(tensor.shape))
        return own(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "sort", noted)
    scores = torch.zeros(3, 40)
    scores[0, 7] = scores[2, 39] = 20.0
    draw = InverseCdfSampling(torch.full((3, 1), 0.5, dtype=torch.float64), 2, 1.0, 0.9)
    tokens = draw(torch.zeros((3, 2), dtype=torch.long), scores).argmax(dim=1)
    assert tokens.tolist() == [7, 18, 39]
    assert (1, 40) in ordered and (3, 40) not in ordered


def test_greedy_limit_and_single_token_nucleus():
    logits = np.array([0.0, 5.0, 1.0])
    assert set(sample(logits, np.linspace(0, 0.999, 50), top_p=0.5)) == {1}
    assert set(sample(logits, np.linspace(0, 0.999, 50), temperature=0.01)) == {1}


def test_a_token_owns_its_interval_without_the_upper_end():
    """Four equal tokens own [0, ¼), [¼, ½), [½, ¾), [¾, 1)."""
    below = np.nextafter([0.25, 0.5, 0.75, 1.0], 0.0)
    assert sample(np.zeros(4), [0.0, 0.25, 0.5, 0.75]).tolist() == [0, 1, 2, 3]
    assert sample(np.zeros(4), below).tolist() == [0, 1, 2, 3]


def test_each_step_takes_its_own_draw():
    uniforms = torch.tensor([[0.01, 0.99], [0.99, 0.01]], dtype=torch.float64)
    processor = InverseCdfSampling(uniforms, 3, 1.0, 1.0)
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    first = processor(torch.zeros((2, 3), dtype=torch.long), scores).argmax(dim=1)
    second = processor(torch.zeros((2, 4), dtype=torch.long), scores).argmax(dim=1)
    assert first.tolist() == [0, 1] and second.tolist() == [1, 0]


def test_draws_belong_to_name_and_seed():
    one = draws(["a", "b"], 5, seed=0)
    assert torch.equal(one, draws(["b", "a"], 5, seed=0).flip(0))
    assert torch.equal(one[:, :3], draws(["a", "b"], 3, seed=0))  # a prefix of longer texts
    assert not torch.equal(one, draws(["a", "b"], 5, seed=1))
    assert not torch.equal(one[0], one[1])
    assert ((one >= 0) & (one < 1)).all() and one.dtype == torch.float64
