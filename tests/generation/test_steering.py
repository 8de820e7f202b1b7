"""Where vectors are added."""

import pytest
import torch

from steering_core.errors import ModelError
from steering_core.generation.steering import steer_generation, steer_positions, steered_positions
from steering_core.models.residual_stream import read_residuals
from steering_core.models.site import Site
from steering_core.models.tokens import pad

SITE = Site(1, "pre", False, True)


@pytest.fixture
def batch(tiny):
    return pad([[1, 5, 6, 7], [1, 8], [1]], tiny.tokenizer, side="left", prepend_bos=True)


def test_steered_positions(batch):
    assert steered_positions(batch, "last").long().tolist() == [
        [0, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],  # BOS is the last token there
    ]
    assert steered_positions(batch, "all").long().tolist() == [
        [0, 1, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_without_bos_the_first_token_is_a_token_like_others(tiny):
    batch = pad([[5, 6], [7]], tiny.tokenizer, side="left", prepend_bos=False)
    assert steered_positions(batch, "all").long().tolist() == [[1, 1], [0, 1]]


def test_exact_positions_of_one_pass(tiny):
    batch = pad([[1, 5, 6, 7], [1, 8]], tiny.tokenizer, side="right", prepend_bos=True)
    where = torch.tensor([[False, True, False, True], [False, True, False, False]])
    vectors = torch.randn(2, 32, dtype=torch.float64)
    base = read_residuals(tiny, [SITE], batch.ids, batch.mask)[SITE.hook_name]
    with steer_positions(tiny, SITE, vectors, where):
        steered = read_residuals(tiny, [SITE], batch.ids, batch.mask)[SITE.hook_name]
    expected = base + where[..., None] * vectors.float()[:, None]
    torch.testing.assert_close(steered, expected)
    assert torch.equal(steered[~where], base[~where])


def test_generation_without_a_cache_is_refused(tiny, batch):
    """A later pass with the whole text would steer padding and BOS."""
    with (
        pytest.raises(ModelError, match="KV cache"),
        steer_generation(tiny, SITE, torch.ones(3, 32), batch),
    ):
        tiny.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=3,
            do_sample=False,
            use_cache=False,
            pad_token_id=0,
        )
