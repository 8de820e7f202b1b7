"""KL and surprise in pieces of the vocabulary against their definitions in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_core.metrics import token_divergence as module
from steering_core.metrics.token_divergence import token_divergence
from steering_core.models.head import logits_of, vocabulary_size
from steering_core.models.tokens import ROW_STEP


def states(n, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, 32, generator=generator)


def definition(lm, steered, base, target):
    s, b = (logits_of(lm, h).double().log_softmax(-1) for h in (steered, base))
    return (s.exp() * (s - b)).sum(-1), -b.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("columns", [7, 16, 64, 1000])
@pytest.mark.parametrize("rows", [1, 8, 13, 4096])
def test_pieces_give_what_the_definition_says(tiny, monkeypatch, rows, columns):
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "COLUMNS", columns)
    steered, base = states(21, 0), states(21, 1)
    target = torch.arange(21) * 3 % 64
    kl, surprise = token_divergence(tiny, steered, base, target)
    expected = definition(tiny, steered, base, target)
    torch.testing.assert_close(kl, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(surprise, expected[1], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
def test_small_and_large_divergences(tiny, seed, scale):
    base = states(5, seed)
    steered = base + scale * states(5, seed + 1, 1.0)
    target = torch.arange(5)
    kl, _ = token_divergence(tiny, steered, base, target)
    expected, _ = definition(tiny, steered, base, target)
    # logits are float32, and their differences and exponentials are as far off as they are large
    largest = max(logits_of(tiny, hidden).abs().max().item() for hidden in (steered, base))
    slack = 4 * torch.finfo(torch.float32).eps * largest
    torch.testing.assert_close(kl, expected, rtol=1e-5, atol=slack)


def test_no_more_than_a_piece_of_the_logits_is_made_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 8)
    monkeypatch.setattr(module, "COLUMNS", 10)
    shapes, own = [], module.logits_of
    monkeypatch.setattr(module, "logits_of", lambda *a: shapes.append(own(*a).shape) or own(*a))
    token_divergence(tiny, states(20, 0), states(20, 1), torch.zeros(20, dtype=torch.long))
    assert max(rows for rows, _ in shapes) == 8 and max(n for _, n in shapes) == 10
    assert all(rows % ROW_STEP == 0 for rows, _ in shapes)
    # every logit of both models once, of 24 rows with those that fill up
    assert sum(rows * n for rows, n in shapes) == 2 * 24 * vocabulary_size(tiny)


def test_rows_have_the_same_digits_in_any_company(tiny):
    steered, base, target = states(40, 2), states(40, 3), torch.arange(40)
    whole = token_divergence(tiny, steered, base, target)
    some = token_divergence(tiny, steered[5:14], base[5:14], target[5:14])
    for all_rows, few in zip(whole, some, strict=True):
        np.testing.assert_allclose(few, all_rows[5:14], rtol=1e-6, atol=1e-7)


def test_nothing_is_compared_with_nothing(tiny):
    kl, surprise = token_divergence(tiny, None, states(3, 0), torch.tensor([1, 2, 3]))
    assert kl.tolist() == [0.0] * 3 and (surprise > 0).all()
    empty = token_divergence(tiny, None, states(0, 0), torch.zeros(0, dtype=torch.long))
    assert [len(part) for part in empty] == [0, 0]
