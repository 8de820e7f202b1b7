"""Every kind of SAE: the features are the SAE's own reconstruction, or it is refused with why."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import sae_lens
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from sae_lens.registry import (
    SAE_CLASS_REGISTRY,
    SAE_TRAINING_CLASS_REGISTRY,
    get_sae_class,
    get_sae_training_class,
)
from sae_lens.saes.sae import SAEMetadata

from steering_core.config.model import SAESource
from steering_core.errors import ModelError
from steering_core.models import sae_source
from steering_core.models.sae_metadata import REFUSED, RUNS
from steering_core.models.sae_source import load_sae_shape
from steering_core.models.sparse_autoencoder import as_dictionary, encoder_of, load_sae

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
D_IN, D_SAE = 8, 20
#: Architecture and options of every SAE that runs.
KINDS = {
    "standard": {},
    "gated": {},
    "jumprelu": {},
    "topk": {"k": 5},
    "topk, rescaled": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "matching_pursuit": {"max_iterations": 6},
}
#: What is saved while training, and whether the checkpoint itself can be read.
TRAINED = {
    "standard": ({}, True),
    "gated": ({}, True),
    "jumprelu": ({}, True),
    "topk": ({"k": 5, "rescale_acts_by_decoder_norm": False}, True),
    "topk, rescaled": ({"k": 5}, True),
    "batchtopk": ({"k": 5}, False),
    "matryoshka_batchtopk": ({"k": 5, "matryoshka_widths": [10, 20]}, False),
    "matching_pursuit": ({"max_iterations": 6, "decoder_init_norm": 1.0}, True),
}
DTYPES = ["float32", "bfloat16", "float16", "float64"]


def metadata(**more) -> SAEMetadata:
    return SAEMetadata(hook_name="blocks.1.hook_resid_post", prepend_bos=True, **more)


def make(kind: str, registry, seed: int = 0, spread: float = 0.4, **options) -> SAE:
    """A random SAE whose decoder rows have norms from 1 / (1 + spread) to 1 + spread."""
    architecture = kind.split(",")[0]
    sae_class, config_class = registry(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = sae_class(config_class(**{"d_in": D_IN, "d_sae": D_SAE, **options}))
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(torch.randn(parameter.shape) / 4)
            wanted = torch.linspace(-1, 1, D_SAE).exp() ** np.log1p(spread)
            sae.W_dec.mul_((wanted / sae.W_dec.float().norm(dim=1))[:, None].to(sae.dtype))
            if hasattr(sae, "threshold"):
                sae.threshold.abs_()
            if hasattr(sae, "topk_threshold"):
                sae.topk_threshold.fill_(0.1)
    return sae


def residuals(seed: int = 0) -> torch.Tensor:
    return torch.randn(12, D_IN, generator=torch.Generator().manual_seed(seed))


def decoded(sae: SAE, x: torch.Tensor) -> np.ndarray:
    """What the SAE makes of ``x`` without the bias of the decoder, decoded in float64."""
    exact = copy.deepcopy(sae).to(torch.float64)
    with torch.no_grad():
        acts = sae.encode(x.to(sae.dtype)).double()
        return (exact.decode(acts) - exact.decode(torch.zeros_like(acts))).numpy()


def check(dictionary, want: np.ndarray, x: torch.Tensor) -> None:
    """Activations along unit rows are ``want``, from the whole dictionary and its encoder."""
    features = dictionary.encode(x)
    assert (features >= 0).all()
    encoder = encoder_of(dictionary)
    torch.testing.assert_close(encoder.encode(x), features, rtol=0, atol=0)
    got = features.double().numpy() @ dictionary.decoder.astype(float)
    np.testing.assert_allclose(
        got, dictionary.site.view(want), atol=1e-5 * (1 + np.abs(want).max())
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**16),
    spread=st.floats(0, 30),
    subtracts=st.booleans(),
    centred=st.booleans(),
)
def test_features_are_lengths_of_what_the_sae_decodes(
    kind, dtype, seed, spread, subtracts, centred
):
    kwargs = {"model_from_pretrained_kwargs": {"center_writing_weights": True}} if centred else {}
    options = {**KINDS[kind], "apply_b_dec_to_input": subtracts, "metadata": metadata(**kwargs)}
    if kind == "matching_pursuit":  # with long rows what is left grows, and float16 overflows
        spread = min(spread, 0.4)
    sae = make(kind, get_sae_class, seed, spread, dtype=dtype, **options)
    x = residuals(seed)
    want = decoded(sae, x)
    assert np.abs(want).max() > 0
    check(as_dictionary(sae, kind), want, x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bias_is_all_that_is_missing(kind):
    """The same against the SAE's own decode, and its bias."""
    spread = 0.4 if kind == "matching_pursuit" else 9.0
    sae = make(kind, get_sae_class, spread=spread, metadata=metadata(), **KINDS[kind])
    x = residuals()
    with torch.no_grad():
        want = sae.decode(sae.encode(x)).numpy()
    dictionary = as_dictionary(sae, kind)
    got = dictionary.encode(x).numpy() @ dictionary.decoder + sae.b_dec.numpy()
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(dictionary.decoder, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("how", ["save_model", "save_inference_model"])
@pytest.mark.parametrize("kind", TRAINED)
def test_checkpoints_of_training(tmp_path, kind, how):
    options, whole = TRAINED[kind]
    sae = make(kind, get_sae_training_class, metadata=metadata(), **options)
    getattr(sae, how)(tmp_path / "layer_1")
    source = SAESource(path=str(tmp_path / "layer_{layer}"))
    if how == "save_model" and not whole:
        for read in (load_sae_shape, load_sae):
            with pytest.raises(ModelError, match="write it with save_inference_model"):
                read(source, 1)
        return
    x = residuals()
    want = decoded(SAE.load_from_disk(tmp_path / "layer_1"), x)
    assert load_sae_shape(source, 1).d_sae == D_SAE
    check(load_sae(source, 1), want, x)
    if whole:  # the others choose over a batch while they are trained
        with torch.no_grad():
            own = sae.decode(sae.encode(x)) - sae.decode(torch.zeros(1, D_SAE))
        np.testing.assert_allclose(own.numpy(), want, atol=1e-4)


def test_one_sae_written_in_two_ways_has_the_same_features():
    """Rows three times as long, and rescaled, are the same TopK SAE as unit rows."""
    unit = make("topk", get_sae_class, spread=0.0, k=5, metadata=metadata())
    longer = make(
        "topk", get_sae_class, k=5, rescale_acts_by_decoder_norm=True, metadata=metadata()
    )
    with torch.no_grad():
        for name, factor in (("W_enc", 1 / 3), ("b_enc", 1 / 3), ("W_dec", 3.0), ("b_dec", 1.0)):
            getattr(longer, name).copy_(getattr(unit, name) * factor)
    x = residuals()
    expected = as_dictionary(unit, "unit").encode(x)
    torch.testing.assert_close(as_dictionary(longer, "longer").encode(x), expected)


@pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "matching_pursuit"])
def test_a_normalised_input_has_a_scale_of_its_own_for_each_token(kind, how):
    """Residuals of norms from 0.1 to 100: features are lengths in the units of each."""
    options = {**KINDS[kind], "normalize_activations": how, "metadata": metadata()}
    sae = make(kind, get_sae_class, spread=4.0, **options)
    x = residuals() * torch.logspace(-1, 2, 12)[:, None] + 0.3
    with torch.no_grad():
        acts = sae.encode(x)
        whole = sae.decode(acts)
        sae.encode(x)  # decoding takes the scale that encoding left
        want = (whole - sae.decode(torch.zeros_like(acts))).numpy()
    dictionary = as_dictionary(sae, kind)
    got = dictionary.encode(x).numpy() @ dictionary.decoder
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    assert (dictionary.encode(x) >= 0).all() and np.abs(want[-1]).max() > 0


@pytest.mark.parametrize("kind", ["topk", "topk, rescaled", "matching_pursuit"])
def test_a_row_of_zeros_is_never_active(kind):
    sae = make(kind, get_sae_class, metadata=metadata(), **KINDS[kind])
    with torch.no_grad():
        sae.W_dec[3] = 0.0
    dictionary = as_dictionary(sae, kind)
    features = dictionary.encode(residuals())
    assert torch.isfinite(features).all() and not features[:, 3].any() and features.any()


def test_a_length_of_float16_may_exceed_float16():
    sae = make("standard", get_sae_class, metadata=metadata(), dtype="float16")
    with torch.no_grad():
        sae.W_dec.mul_(3000.0)
    dictionary = as_dictionary(sae, "long rows")
    features = dictionary.encode(1000.0 * residuals())
    assert torch.isfinite(features).all() and features.max() > torch.finfo(torch.float16).max


# ------------------------------------------------------------------ refusals


def refused(architecture: str) -> dict:
    """Options with which an SAE of the architecture can be built."""
    if "transcoder" in architecture:
        return {"d_out": D_IN, "apply_b_dec_to_input": False}
    if architecture == "temporal":
        return {"n_heads": 2, "bottleneck_factor": 2, "kval_topk": 5}
    return TRAINED.get(architecture, ({"k": 5}, False))[0]


@pytest.mark.parametrize("architecture", REFUSED)
def test_other_architectures_are_refused_before_the_weights(tmp_path, architecture):
    registry = SAE_CLASS_REGISTRY if architecture in SAE_CLASS_REGISTRY else None
    sae_class, config_class = (registry or SAE_TRAINING_CLASS_REGISTRY)[architecture]
    sae = sae_class(
        config_class(d_in=D_IN, d_sae=D_SAE, metadata=metadata(), **refused(architecture))
    )
    sae.save_model(tmp_path / "layer_1")
    reason = re.escape(REFUSED[architecture])
    with pytest.raises(ModelError, match=reason):
        as_dictionary(sae, architecture)
    (tmp_path / "layer_1" / "sae_weights.safetensors").unlink()
    for read in (load_sae_shape, load_sae):
        with pytest.raises(ModelError, match=reason):
            read(SAESource(path=str(tmp_path / "layer_{layer}")), 1)


def test_an_architecture_nobody_tried(tmp_path):
    sae = make("standard", get_sae_class, metadata=metadata())
    sae.save_model(tmp_path / "layer_1")
    file = tmp_path / "layer_1" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architecture": "crosscoder"}))
    with pytest.raises(ModelError, match=r"'crosscoder', which cannot be used.*matching_pursuit"):
        load_sae_shape(SAESource(path=str(tmp_path / "layer_{layer}")), 1)


@pytest.mark.parametrize(
    ("release", "made", "match"),
    [
        ("goodfire-llama-3.3-70b-instruct", {}, None),
        ("temporal-sae-gemma-2-2b", {"architecture": "temporal"}, "earlier positions of the text"),
        # sae-lens knows the factor of the one and folds it, and not that of the other
        ("llama_scope_lxr_8x", {"normalize_activations": "expected_average_only_in"}, None),
        (
            "deepseek-r1-distill-llama-8b-qresearch",
            {"normalize_activations": "expected_average_only_in"},
            "factor is not folded",
        ),
        ("llama_scope_lxr_8x", {"normalize_activations": "layer_norm"}, None),
        ("llama_scope_lxr_8x", {"d_in": None}, r"cfg\.json: no d_in"),
    ],
)
def test_releases_of_other_formats_are_checked_in_the_same_way(monkeypatch, release, made, match):
    """The configuration comes from sae-lens' own reader of the release, without a dtype."""
    config = {
        **{"architecture": "standard", "d_in": 8, "d_sae": 20},
        **{"hook_name": "blocks.1.hook_resid_post", **made},
    }
    lookup = sae_source.get_pretrained_saes_directory()[release]
    readers = {lookup.conversion_func: lambda *_: config}
    monkeypatch.setattr(sae_source, "NAMED_PRETRAINED_SAE_CONFIG_GETTERS", readers)
    source = SAESource(release=release, id=next(iter(lookup.saes_map)))
    if match is None:
        assert load_sae_shape(source, 1).d_sae == 20
    else:
        with pytest.raises(ModelError, match=match):
            load_sae_shape(source, 1)


def test_an_sae_that_writes_elsewhere():
    options = {"metadata": metadata(hook_name_out="blocks.1.hook_mlp_out")}
    with pytest.raises(ModelError, match=r"writes blocks\.1\.hook_mlp_out"):
        as_dictionary(make("standard", get_sae_class, **options), "sae")
    same = {"metadata": metadata(hook_name_out="blocks.1.hook_resid_post")}
    assert as_dictionary(make("standard", get_sae_class, **same), "sae").d_sae == D_SAE


def test_a_decoder_of_another_width():
    sae = make("standard", get_sae_class, metadata=metadata())
    sae.W_dec = torch.nn.Parameter(torch.ones(D_SAE, 6))
    with pytest.raises(
        ModelError, match=r"decoder is \(20, 6\) and not \(d_sae, d_in\), \(20, 8\)"
    ):
        as_dictionary(sae, "sae")


def test_weights_that_give_no_lengths():
    sae = make("jumprelu", get_sae_class, metadata=metadata())
    with torch.no_grad():
        sae.threshold[4] = -0.1
    with pytest.raises(ModelError, match="thresholds below zero"):
        as_dictionary(sae, "sae")
    sae = make("topk", get_sae_class, k=5, metadata=metadata())
    with torch.no_grad():
        sae.W_dec[4, 2] = float("nan")
    with pytest.raises(ModelError, match="1 decoder rows are not finite"):
        as_dictionary(sae, "sae")


# ------------------------------------------------------------------ the page


def test_the_page_names_every_architecture_of_sae_lens():
    """A new version of sae-lens with another architecture fails here until it was looked at."""
    assert set(RUNS) | set(REFUSED) == {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY}
    assert not set(RUNS) & set(REFUSED) and {kind.split(",")[0] for kind in KINDS} == set(RUNS)
    section = PAGE.read_text(encoding="utf-8").split("## SAE kinds")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (runs|refused) \| (.+) \|$", section, re.MULTILINE)
    told = {name: (what, why) for names, what, why in rows for name in re.findall("`(.+?)`", names)}
    assert set(told) == {*RUNS, *REFUSED}
    assert {name for name, (what, _) in told.items() if what == "runs"} == set(RUNS)
    for name, reason in REFUSED.items():
        assert told[name][1] == reason
    assert f"sae-lens {sae_lens.__version__}" in section
