"""Broken configurations of SAEs: one clear error, before the weights, with what to write."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sae_kinds import KINDS, PAGE, make, metadata, residuals

from steering_core.config.model import SAESource
from steering_core.errors import ConfigError, ModelError, SteeringError
from steering_core.models import sae_source, sparse_autoencoder
from steering_core.models.sae_source import load_sae_shape, no_such_sae, parse_config
from steering_core.models.sparse_autoencoder import load_sae

LOADERS = [load_sae, load_sae_shape]


@pytest.fixture
def saved(tmp_path):
    """A TopK SAE on disk."""
    from sae_lens.registry import get_sae_class

    make("topk", get_sae_class, k=5, metadata=metadata()).save_model(tmp_path / "layer_1")
    return tmp_path / "layer_1"


def source_of(folder: Path) -> SAESource:
    return SAESource(path=str(folder.parent / "layer_{layer}"))


def edit(folder: Path, **changes) -> None:
    """Change keys of cfg.json; a key of ``metadata`` by ``metadata__``; ``...`` takes it out."""
    file = folder / "cfg.json"
    config = json.loads(file.read_text())
    for name, value in changes.items():
        inside, _, key = name.rpartition("__")
        place = config["metadata"] if inside else config
        if value is ...:
            del place[key]
        else:
            place[key] = value
    file.write_text(json.dumps(config))


def refusal(folder: Path, match: str) -> str:
    """The error of both loaders, without looking at the weights."""
    weights = folder / "sae_weights.safetensors"
    weights.rename(folder / "hidden")
    messages = set()
    for read in LOADERS:
        with pytest.raises(ModelError, match=match) as error:
            read(source_of(folder), 1)
        messages.add(str(error.value))
    (folder / "hidden").rename(weights)
    (message,) = messages
    return message


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"metadata": None}, "metadata must be an object, not null"),
        ({"metadata": ["hook_name"]}, r'metadata must be an object, not \["hook_name"\]'),
        ({"d_in": ...}, r'no d_in\. Write into cfg\.json .*"d_in": width of the residual stream'),
        ({"d_in": None}, "no d_in"),
        ({"d_in": "8"}, r'd_in is "8": input should be a valid integer'),
        ({"d_sae": -1}, "d_sae is -1: input should be greater than 0"),
        ({"dtype": ...}, r'no dtype\. Write .*"dtype": "float32", "float16"'),
        ({"dtype": "int8"}, r'dtype is "int8": input should be \'float32\''),
        ({"dtype": 32}, "dtype is 32"),
        ({"architecture": ...}, r'no architecture\. Write .*"architecture": one of "standard"'),
        ({"architecture": {}}, r"architecture is \{\}: input should be a valid string"),
        ({"k": ...}, r"no k\. Write .*how many features are active"),
        ({"k": 5.0}, "k is 5.0"),
        ({"k": 21}, "k is 21, but there are 20 features"),
        ({"metadata__hook_name": ...}, r'no hook_name\..*under "metadata": "hook_name": "blocks'),
        ({"metadata__hook_name": 7}, "hook_name is 7: input should be a valid string"),
        ({"metadata__prepend_bos": ...}, r"no prepend_bos\..*true if the SAE was trained on texts"),
        ({"metadata__prepend_bos": "yes"}, 'prepend_bos is "yes": input should be a valid bool'),
        ({"metadata__sae_lens_version": ...}, r"no sae_lens_version\..*under .metadata"),
        ({"metadata__sae_lens_version": "new"}, 'sae_lens_version is "new", which is no version'),
        ({"metadata__sae_lens_version": 6}, "sae_lens_version is 6, which is no version"),
        ({"metadata__model_from_pretrained_kwargs": ["a"]}, "kwargs is .*valid dictionary"),
        ({"metadata__neuronpedia_id": ["a"]}, "neuronpedia_id is .*valid string"),
        ({"normalize_activations": None}, "normalize_activations is null"),
        ({"normalize_activations": True}, "normalize_activations is true"),
        ({"normalize_activations": "covariance_whitening"}, "rescales its input .covariance_wh"),
        ({"normalize_activations": "constant_scalar_rescale"}, "rescales its input .constant_sc"),
        ({"reshape_activations": "hook_z"}, "reshapes its input .hook_z"),
        ({"apply_b_dec_to_input": "true"}, 'apply_b_dec_to_input is "true"'),
        ({"rescale_acts_by_decoder_norm": 1}, "rescale_acts_by_decoder_norm is 1"),
    ],
)
def test_one_error_before_the_weights(saved, changes, match):
    edit(saved, **changes)
    refusal(saved, match)


def test_all_faults_are_named_at_once(saved):
    edit(saved, d_in=..., dtype=..., architecture=..., d_sae="many", metadata__hook_name=...)
    message = refusal(saved, "no architecture; no d_in; no dtype; no hook_name; d_sae is")
    assert message.startswith(f"{saved / 'cfg.json'}: ")
    for key in ("architecture", "d_in", "dtype", "hook_name"):
        assert f'"{key}": ' in message


@pytest.mark.parametrize("text", ["[1, 2]", '"cfg"', "null", "7"])
def test_no_object(saved, text):
    (saved / "cfg.json").write_text(text)
    refusal(saved, rf"must hold a JSON object of settings, not {re.escape(text)}")


@pytest.mark.parametrize("content", [b"{", b"", b'{"d_in": "\xff"}', b"\xef\xbb\xbf{}"])
def test_no_json(saved, content):
    (saved / "cfg.json").write_bytes(content)
    for read in LOADERS:
        with pytest.raises(ConfigError, match=r"sae\.path: .*cfg\.json is not JSON"):
            read(source_of(saved), 1)


def test_what_to_write_makes_it_run(saved):
    config = json.loads((saved / "cfg.json").read_text())
    (saved / "cfg.json").write_text("{}")
    expected = {"architecture": "topk", "d_in": 8, "d_sae": 20, "dtype": "float32", "k": 5}
    inside = ("hook_name", "prepend_bos", "sae_lens_version")
    given = {"metadata": {key: config["metadata"][key] for key in inside}, **expected}
    (saved / "cfg.json").write_text(json.dumps(given))
    assert load_sae_shape(source_of(saved), 1).d_sae == 20
    assert load_sae(source_of(saved), 1).d_model == 8


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"d_sae": 19}, r"W_enc is \(8, 20\) and not \(8, 19\)"),
        ({"d_in": 9}, r"W_dec is \(20, 8\) and not \(20, 9\)"),
        ({"architecture": "standard", "d_sae": 40}, r"b_enc is \(20,\) and not \(40,\)"),
        ({"architecture": "jumprelu"}, "there is no threshold"),
        ({"architecture": "gated"}, "there is no b_gate.*b_enc is not expected"),
        ({"architecture": "matching_pursuit"}, "W_enc is not expected"),
    ],
)
def test_weights_of_another_configuration(saved, changes, match):
    edit(saved, **changes)
    for read in LOADERS:
        with pytest.raises(ModelError, match=match):
            read(source_of(saved), 1)


def test_weights_that_are_missing_or_damaged_stop_the_fetch(saved):
    weights = saved / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="missing or damaged"):
        load_sae_shape(source_of(saved), 1)
    weights.unlink()
    with pytest.raises(ModelError, match="missing or damaged"):
        load_sae_shape(source_of(saved), 1)


def test_the_scale_of_old_weights(saved):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "sae_weights.safetensors")
    save_file({**weights, "scaling_factor": torch.ones(20)}, saved / "sae_weights.safetensors")
    assert load_sae_shape(source_of(saved), 1).d_sae == 20
    assert load_sae(source_of(saved), 1).d_sae == 20
    save_file(
        {**weights, "scaling_factor": torch.full((20,), 2.0)}, saved / "sae_weights.safetensors"
    )
    for read in LOADERS:
        with pytest.raises(ModelError, match="scaling_factor of their own"):
            read(source_of(saved), 1)


# ------------------------------------------------------------------ files of older versions

OLD = {
    "d_in": 8,
    "d_sae": 20,
    "dtype": "torch.float32",
    "hook_point": "blocks.1.hook_resid_pre",
    "activation_fn_str": "topk",
    "activation_fn_kwargs": {"k": 5},
}


def test_an_old_topk_sae_runs(saved):
    (saved / "cfg.json").write_text(json.dumps(OLD))
    assert load_sae_shape(source_of(saved), 1).site.stream == "pre"
    assert load_sae(source_of(saved), 1).sae.cfg.k == 5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"d_in": None, "dtype": None}, "no d_in; no dtype"),
        ({"hook_point": None}, r'no hook_name\. Write .*trained with: "hook_name"'),
        ({"activation_fn_kwargs": {}}, "no k"),  # sae-lens makes a ReLU of it
        ({"activation_fn_kwargs": [5]}, "no k; activation_fn_kwargs is"),
        ({"activation_fn_str": "tanh-relu"}, 'activation_fn is "tanh-relu"'),  # likewise
        ({"metadata": {"hook_name": "blocks.1.hook_resid_pre"}}, "no sae_lens_version"),
        ({"normalize_activations": True}, "rescales its input .expected_average_only_in"),
        ({"architecture": "transcoder", "activation_fn_str": "relu"}, "writes to another place"),
    ],
)
def test_old_files_that_sae_lens_would_take_for_others(saved, changes, match):
    (saved / "cfg.json").write_text(json.dumps({**OLD, **changes}))
    refusal(saved, match)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["", "topk", "6.1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["k", "hook_name", "sae_lens_version"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)
KEYS = (
    *("architecture", "d_in", "d_sae", "dtype", "k", "metadata", "hook_name", "hook_point"),
    *("prepend_bos", "sae_lens_version", "activation_fn_str", "activation_fn_kwargs"),
    *("normalize_activations", "reshape_activations", "model_from_pretrained_kwargs"),
)


@settings(max_examples=300)
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=4), old=st.booleans()
)
def test_no_configuration_ends_in_a_traceback(changes, old):
    whole = {
        **{"architecture": "topk", "d_in": 8, "d_sae": 20, "dtype": "float32", "k": 5},
        "metadata": {
            **{"sae_lens_version": "6.1.0", "hook_name": "blocks.1.hook_resid_pre"},
            "prepend_bos": True,
        },
    }
    try:
        config = parse_config({**(OLD if old else whole), **changes}, "cfg.json")
    except SteeringError as error:
        assert str(error).startswith("cfg.json")
    else:
        assert config["d_in"] > 0 and config["d_sae"] > 0 and config["metadata"]["hook_name"]


# ------------------------------------------------------------------ on the hub


@pytest.fixture
def on_the_hub(monkeypatch, saved):
    """Let a repository in sae-lens' format, and one of its releases, hold what ``saved`` holds."""
    monkeypatch.setattr(
        sae_source, "hf_hub_download", lambda _, name: str(saved / name.rsplit("/")[-1])
    )
    return saved


@pytest.mark.parametrize(
    "source",
    [
        SAESource(release="somebody/saes", id="layer_{layer}"),
        SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre"),
    ],
)
def test_the_same_faults_on_the_hub(on_the_hub, source):
    assert load_sae_shape(source, 1).d_sae == 20
    edit(on_the_hub, dtype=...)  # sae-lens loads it in float32
    assert load_sae_shape(source, 1).d_sae == 20
    edit(on_the_hub, d_in=..., metadata__hook_name=...)
    for read in LOADERS:
        with pytest.raises(ModelError, match=r"cfg\.json: no d_in; no hook_name"):
            read(source, 1)
    edit(on_the_hub, metadata=None)
    for read in LOADERS:
        with pytest.raises(ModelError, match="metadata must be an object, not null"):
            read(source, 1)
    (on_the_hub / "cfg.json").write_text("[]")
    for read in LOADERS:
        with pytest.raises(ModelError, match=r"must hold a JSON object of settings, not \[\]"):
            read(source, 1)
    (on_the_hub / "cfg.json").write_text("{")
    for read in LOADERS:
        with pytest.raises(ConfigError, match="is not JSON"):
            read(source, 1)


def test_weights_from_the_hub_of_another_configuration(on_the_hub):
    edit(on_the_hub, d_sae=19)
    with pytest.raises(ModelError, match=r"W_dec is \(20, 8\) and not \(19, 8\)"):
        load_sae(SAESource(release="somebody/saes", id="layer_{layer}"), 1)


def test_a_converted_release_that_cannot_be_read(monkeypatch):
    release = "goodfire-llama-3.3-70b-instruct"
    lookup = sae_source.get_pretrained_saes_directory()[release]
    source = SAESource(release=release, id=next(iter(lookup.saes_map)))
    for raised in (KeyError("trainer"), ValueError("Layer not found"), TypeError("no list")):

        def fail(*_, raised=raised):
            raise raised

        readers = {lookup.conversion_func: fail}
        monkeypatch.setattr(sae_source, "NAMED_PRETRAINED_SAE_CONFIG_GETTERS", readers)
        with pytest.raises(ModelError, match=f"cannot read .*{type(raised).__name__}"):
            load_sae_shape(source, 1)


# ------------------------------------------------------------------ other libraries


@pytest.mark.parametrize(
    ("names", "library"),
    [
        (("ae.pt", "config.json"), "dictionary_learning"),
        (("params.npz",), "Gemma Scope"),
        (("sae.safetensors",), "sparsify"),
    ],
)
def test_directories_of_other_libraries(tmp_path, names, library):
    folder = tmp_path / "odd [name]" / "layer_01"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"")
    source = SAESource(path=str(folder.parent / "layer_{layer:02d}"))
    match = rf"{re.escape(names[0])} is, as {library} writes it.*docs/models\.md"
    for read in LOADERS:
        with pytest.raises(ConfigError, match=match):
            read(source, 1)
    assert re.search(match, str(no_such_sae(source, "{layer}")))
    assert "is layer 2 trained?" in str(no_such_sae(source, 2))


def test_the_page_converts_them(tmp_path, monkeypatch):
    from sae_lens.registry import get_sae_class

    monkeypatch.chdir(tmp_path)
    learnt, scope = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    x = residuals()
    for code, kind in ((learnt, "standard"), (scope, "jumprelu")):
        options = {**KINDS[kind], "apply_b_dec_to_input": kind == "standard"}
        sae = make(kind, get_sae_class, metadata=metadata(), **options)
        weights = {key: value.detach() for key, value in sae.state_dict().items()}
        np.savez("params.npz", **{key: value.numpy() for key, value in weights.items()})
        own = {
            "encoder.weight": weights["W_enc"].T,
            "encoder.bias": weights["b_enc"],
            "decoder.weight": weights["W_dec"].T,
            "bias": weights["b_dec"],
        }
        torch.save(own, "ae.pt")
        exec(code, {})
        made = load_sae(SAESource(path=str(tmp_path / "layer_{layer}")), 1).encode(x)
        expected = sparse_autoencoder.as_dictionary(sae, kind).encode(x)
        torch.testing.assert_close(made, expected)
