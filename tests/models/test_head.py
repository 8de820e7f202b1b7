"""Logits are made as the model makes them; one that does more is found out early."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import FalconH1Config, FalconH1ForCausalLM

from steering_core.errors import ModelError
from steering_core.models.head import check_head


def test_the_scales_of_falcon_h1(tiny):
    config = FalconH1Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        lm_head_multiplier=0.25,
    )
    model = FalconH1ForCausalLM(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.lm_head.weight)
    check_head(replace(tiny, model=model))


def test_any_other_factor_is_found_on_the_first_load(tiny):
    check_head(tiny)
    scaled = copy.deepcopy(tiny.model)
    forward = scaled.forward

    def doubled(**given):
        out = forward(**given)
        out.logits = 2 * out.logits
        return out

    scaled.forward = doubled
    with pytest.raises(ModelError, match=r"LlamaForCausalLM.*or a second head"):
        check_head(replace(tiny, model=scaled))
