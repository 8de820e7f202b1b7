"""Prompts of many lengths and a vector for each."""

import numpy as np
import pytest

from steering_core.models.tokens import tokenize


@pytest.fixture(scope="session")
def prompts(tiny):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 60, n)) for n in (1, 9, 3, 6, 3, 2)]
    return tokenize(tiny.tokenizer, texts, prepend_bos=True)


@pytest.fixture(scope="session")
def vectors():
    return np.random.default_rng(1).normal(size=(6, 32)) * 3
