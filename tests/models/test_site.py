"""Sites come from the SAE's metadata, or not at all."""

import numpy as np
import pytest

from steering_core.errors import ModelError
from steering_core.models.site import Site, site_of

METADATA = {"hook_name": "blocks.7.hook_resid_post", "prepend_bos": False}


def test_site_from_metadata():
    site = site_of(METADATA, "sae")
    assert site == Site(layer=7, stream="post", centred=False, prepend_bos=False)
    assert site.hook_name == METADATA["hook_name"]
    assert Site(**site.to_dict()) == site


def test_centred_where_the_model_was():
    kwargs = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    assert site_of({**METADATA, **kwargs}, "sae").centred
    assert not site_of({**METADATA, "model_from_pretrained_kwargs": None}, "sae").centred


@pytest.mark.parametrize("key", ["hook_name", "prepend_bos"])
@pytest.mark.parametrize("absent", [True, False])
def test_what_the_metadata_lacks_is_an_error(key, absent):
    metadata = (
        {k: v for k, v in METADATA.items() if k != key} if absent else {**METADATA, key: None}
    )
    with pytest.raises(ModelError, match=f"no {key}"):
        site_of(metadata, "sae")


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.hook_mlp_in",
        "model.layers.3.mlp.down_proj",
        "model.layers",
        "blocks.3.attn.hook_z",
        "blocks.3.hook_resid_middle",
        "blocks.3.hook_resid_post.extra",
        "xblocks.3.hook_resid_post",
        "blocks.*.hook_resid_post",
    ],
)
def test_other_hooks_are_refused_by_name(hook):
    with pytest.raises(ModelError, match="only residual streams"):
        site_of({**METADATA, "hook_name": hook}, "sae")


@pytest.mark.parametrize(
    ("hook", "stream", "name"),
    [
        ("blocks.3.hook_resid_mid", "mid", "blocks.3.hook_resid_mid"),
        ("blocks.3.hook_mlp_out", "mlp_out", "blocks.3.hook_mlp_out"),
        ("blocks.3.hook_attn_out", "attn_out", "blocks.3.hook_attn_out"),
        ("model.layers.3", "post", "blocks.3.hook_resid_post"),
        ("layers.3", "post", "blocks.3.hook_resid_post"),
        ("transformer.h.3.mlp", "mlp", "blocks.3.mlp"),
        ("model.layers.3.self_attn", "attn", "blocks.3.attn"),
        ("gpt_neox.layers.3.attention", "attn", "blocks.3.attn"),
    ],
)
def test_places_inside_a_block_and_names_of_modules(hook, stream, name):
    site = site_of({**METADATA, "hook_name": hook}, "sae")
    assert (site.layer, site.stream, site.hook_name) == (3, stream, name)
    assert Site(**site.to_dict()) == site


def test_unknown_model_processing_is_refused():
    kwargs = {"model_from_pretrained_kwargs": {"fold_ln": True, "center_writing_weights": True}}
    with pytest.raises(ModelError, match="fold_ln"):
        site_of({**METADATA, **kwargs}, "sae")


def test_view_centres_each_row_and_nothing_else():
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32) + 3
    raw = Site(1, "pre", False, True).view(rows)
    centred = Site(1, "pre", True, True).view(rows)
    assert raw is rows
    assert centred.dtype == np.float32
    np.testing.assert_allclose(centred.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(centred, axis=1), np.diff(rows, axis=1), atol=1e-6)
