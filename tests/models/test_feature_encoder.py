"""An SAE without its decoder reads as the whole one does."""

import pytest
import torch
from sae_lens import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata

from steering_core.models.sparse_autoencoder import as_dictionary, encoder_of


@pytest.mark.parametrize(
    ("kind", "config", "whole"),
    [
        (StandardSAE, StandardSAEConfig, {}),
        (JumpReLUSAE, JumpReLUSAEConfig, {}),
        (TopKSAE, TopKSAEConfig, {"k": 5}),
        (TopKSAE, TopKSAEConfig, {"k": 5, "rescale_acts_by_decoder_norm": True}),
    ],
)
def test_it_encodes_as_the_dictionary_does(kind, config, whole):
    metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", prepend_bos=True)
    sae = kind(config(d_in=8, d_sae=20, metadata=metadata, **whole))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).abs() / 4)
    dictionary = as_dictionary(sae, "random")
    residual = torch.randn(30, 8, generator=generator)
    features = dictionary.encode(residual)
    assert (features > 0).any() and (features == 0).any()
    encoder = encoder_of(dictionary)
    torch.testing.assert_close(encoder.encode(residual), features, rtol=0, atol=0)
    assert encoder.d_sae == 20 and encoder.site == dictionary.site
    assert encoder.sae.W_dec.numel() == (160 if "rescale_acts_by_decoder_norm" in whole else 0)
