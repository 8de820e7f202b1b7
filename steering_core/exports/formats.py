"""An intervention in the formats of other programs, and what each of them cannot say.

Every function returns what it wrote, or raises :class:`UnsayableError` with the reason. The layer
that a program counts from, and the tokens that it steers, differ: see docs/exports.md.
"""

import ctypes
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from steering_core.errors import ConfigError, DataError, ModelError
from steering_core.exports.attach import FixedVector
from steering_core.exports.load import LoadedIntervention
from steering_core.models.site import Site
from steering_core.storage.files import atomic_path, write_json, write_text

#: The file that each consumer reads.
GGUF = "llama_cpp.gguf"
FEATURES = "features.csv"
_CSV_IS_REFUSED = (
    "version 0.4.13 reads the CSV and then refuses it, since it passes the SAE's bias to an action "
    "that takes none: give it a file of to_lm_eval instead."
)
#: Neuronpedia accepts strengths up to this.
_NEURONPEDIA_STRENGTH = 100.0


class UnsayableError(DataError):
    """A format cannot say what the intervention does."""


def block_vectors(one: LoadedIntervention) -> dict[int, Float[np.ndarray, " d_model"]]:
    """Return what is added at the output of each block, as most programs add it.

    The input of block L is the output of block L − 1, so ``resid_pre`` of L is block L − 1.

    Raises:
        UnsayableError: if the vector depends on the prompt or token, is added before block 0, or
            inside a block where the rest of the block reads it.
    """
    blocks = _by_block(one)
    if -1 in blocks:
        raise UnsayableError("the vector is added before block 0, and the format begins after it.")
    return blocks


def _by_block(one: LoadedIntervention) -> dict[int, Float[np.ndarray, " d_model"]]:
    """Return what is added at the output of each block, −1 being the embedding."""
    _refuse_gate(one)
    blocks: dict[int, np.ndarray] = {}
    for site, what in one.at.items():
        if not isinstance(what, FixedVector):
            raise UnsayableError(
                "the method has another vector for each prompt or token, and the format holds "
                "one for all."
            )
        block = block_of(site)
        blocks[block] = blocks.get(block, 0.0) + np.asarray(what.vector, dtype=np.float64)
    return blocks


def _refuse_gate(one: LoadedIntervention) -> None:
    """Refuse what acts only at some tokens.

    Raises:
        UnsayableError: naming the condition, and what to export instead.
    """
    gate = one.facts.get("gate")
    if gate is not None:
        condition = ", ".join(f"{key}: {value:g}" for key, value in gate["condition"].items())
        raise UnsayableError(
            f"it cannot add a vector only where a gate is open ({condition}): export "
            f"{gate['behind']}, the method behind the gate."
        )


def block_of(site: Site) -> int:
    """Return the block whose output changes by a vector at ``site``; −1 is the embedding.

    ``mlp_out`` is the last that a block adds to the stream: a vector there is added to the output.

    Raises:
        UnsayableError: if the rest of the block reads what is added at ``site``.
    """
    blocks = {"pre": site.layer - 1, "post": site.layer, "mlp_out": site.layer}
    if site.stream not in blocks:
        raise UnsayableError(
            f"it adds vectors to the stream between blocks, and {site.hook_name} is inside a block."
        )
    return blocks[site.stream]


def layer_map(site: Site) -> dict[str, int | None]:
    """Return the number of a site in the counts of other programs; None where they have none."""
    try:
        block = block_of(site)
    except UnsayableError:
        block = -1
    return {
        "llama.cpp direction": block if block > 0 else None,
        "output of block": block if block >= 0 else None,
        "input of block": block + 1 if site.stream in ("pre", "post", "mlp_out") else None,
    }


def llama_cpp_layers(one: LoadedIntervention) -> dict[int, Float[np.ndarray, " d_model"]]:
    """Return ``direction.k`` of llama.cpp: added at the output of block k; there is no k = 0.

    Raises:
        UnsayableError: as :func:`block_vectors`, or for the output of block 0.
    """
    blocks = block_vectors(one)
    if 0 in blocks:
        raise UnsayableError("llama.cpp rejects a vector at the output of block 0 (direction.0).")
    return blocks


def model_hint(architecture: str) -> str:
    """Return the model type of a class of transformers, such as ``llama``."""
    types = [
        kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name == architecture
    ]
    # Some types share a class: the type of the same name is its own.
    own = [kind for kind in types if architecture.lower().startswith(kind.replace("_", ""))]
    return max(own, key=len) if own else (types or [architecture])[0]


def write_gguf(one: LoadedIntervention, directory: Path) -> str:
    """Write a control vector of llama.cpp."""
    from gguf import GGUFWriter

    layers = llama_cpp_layers(one)
    model = one.facts["model"]
    with atomic_path(directory / GGUF) as temporary:
        writer = GGUFWriter(temporary, "controlvector")
        writer.add_string("controlvector.model_hint", model_hint(model["architecture"]))
        writer.add_uint32("controlvector.layer_count", model["n_layers"])
        for k, vector in sorted(layers.items()):
            writer.add_tensor(f"direction.{k}", vector.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return GGUF


def write_easysteer(one: LoadedIntervention, directory: Path) -> str:
    """Write a steering configuration of EasySteer, which reads the GGUF file."""
    layers = sorted(llama_cpp_layers(one))
    apply: dict[str, Any] = {"prompt": True, "generation": True}
    if one.positions == "last":
        apply["prompt_positions"] = [-1]
    vector = {"source": GGUF, "scale": 1.0, "layers": layers, "algorithm": "direct"}
    name = "easysteer.json"
    steering = {"vectors": [{**vector, "normalize": False, "apply": apply}]}
    write_json(directory / name, {"steering": steering})
    return name


def write_vllm_lens(one: LoadedIntervention, directory: Path) -> str:
    """Write the ``extra_args`` of vllm-lens; make ``activations`` a tensor before the call."""
    blocks = block_vectors(one)
    vector = {
        "activations": [blocks[k].tolist() for k in sorted(blocks)],
        "layer_indices": sorted(blocks),
        "scale": 1.0,
        "norm_match": False,
        "position_indices": None,
    }
    name = "vllm_lens.json"
    write_json(directory / name, {"extra_args": {"apply_steering_vectors": [vector]}})
    return name


def write_hotwire(one: LoadedIntervention, directory: Path) -> str:
    """Write the ``vllm_xargs`` of hotwire. Its table of vectors is not written.

    Raises:
        UnsayableError: with the reason, if the format cannot say what is added.
    """
    blocks = block_vectors(one)
    if len(blocks) > 1:
        raise UnsayableError(
            "a request of hotwire names one layer, and this method steers several."
        )
    (layer,) = blocks
    request = {"id": one.facts["method"], "layer": layer, "scale": 1.0, "decode_only": False}
    name = "hotwire.json"
    write_json(directory / name, {"vllm_xargs": {"hotwire": json.dumps(request)}})
    return name


def write_lm_eval(one: LoadedIntervention, directory: Path) -> str:
    """Write the CSV of lm-evaluation-harness's ``--model steered``: SAE features by name.

    Raises:
        UnsayableError: with the reason, if the format cannot say what is added.
    """
    _refuse_gate(one)
    sae, features = one.facts["sae"], one.facts["features"]
    if not features:
        raise UnsayableError(
            "its CSV names SAE features, and this vector is not made of fixed ones."
        )
    if len(features) > 1 or len(one.at) > 1:
        raise UnsayableError(
            "it keeps one feature per hookpoint, the last; this intervention has "
            f"{len(features)}. Export single_feature."
        )
    if not sae.get("release") or not sae.get("id"):
        raise UnsayableError(
            "it loads SAEs of sae-lens by release and id; this SAE is a local file."
        )
    (site,) = one.at
    block = block_of(site)
    if block < 0:
        raise UnsayableError("the vector is added before block 0, which is no module's output.")
    ((feature, coefficient),) = features
    where = hookpoint(one, block)
    header = "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,sae_id,"
    row = f"sae_lens,add,{sae['release']},{where},{int(feature)},{coefficient!r},{sae['id']},"
    name = "lm_eval.csv"
    write_text(directory / name, f"{header}description\n{row}{one.facts['method']}\n")
    return name


def write_neuronpedia(one: LoadedIntervention, directory: Path) -> str:
    """Write the body of Neuronpedia's ``POST /api/vector/new``.

    Raises:
        UnsayableError: with the reason, if the format cannot say what is added.
    """
    facts = one.facts
    blocks = block_vectors_or_input(one)
    if len(blocks) > 1:
        raise UnsayableError(
            "a vector of Neuronpedia is of one layer, and this method steers several."
        )
    ((layer, vector),) = blocks.items()
    if layer >= facts["model"]["n_layers"]:
        raise UnsayableError("it adds vectors before blocks, and this one is after the last.")
    norm = float(np.linalg.norm(vector))
    if norm > _NEURONPEDIA_STRENGTH:
        raise UnsayableError(
            f"its strengths end at {_NEURONPEDIA_STRENGTH:g}; the norm is {norm:.4g}."
        )
    neuronpedia = facts["sae"].get("neuronpedia_id")
    model_id = neuronpedia.partition("/")[0] if neuronpedia else facts["model"]["id"]
    body = {
        "modelId": model_id,
        "layerNumber": layer,
        "hookType": "hook_resid_pre",
        "vector": (vector / norm).tolist(),
        "vectorDefaultSteerStrength": norm,
        "vectorLabel": f"{facts['experiment']} {facts['method']}",
    }
    name = "neuronpedia.json"
    write_json(directory / name, body)
    return name


def block_vectors_or_input(one: LoadedIntervention) -> dict[int, Float[np.ndarray, " d_model"]]:
    """Return what is added at the input of each block; after the last it is block ``n_layers``."""
    return {block + 1: vector for block, vector in _by_block(one).items()}


def write_features(one: LoadedIntervention, directory: Path) -> str:
    """Write features and coefficients, for people who steer by hand.

    Raises:
        UnsayableError: with the reason, if the format cannot say what is added.
    """
    _refuse_gate(one)
    features = one.facts["features"]
    if features is None:
        raise UnsayableError("it does not act through a fixed set of SAE features.")
    lines = ["feature,coefficient,link"]
    links = one.facts.get("links") or [None] * len(features)
    for (feature, coefficient), link in zip(features, links, strict=True):
        lines.append(f"{int(feature)},{coefficient!r},{link or ''}")
    write_text(directory / FEATURES, "\n".join(lines) + "\n")
    return FEATURES


#: Says what a consumer does otherwise than the experiment did.
def _everywhere(one: LoadedIntervention) -> list[str]:
    warnings = ["it steers every token, BOS included; the experiment never steers BOS."]
    if one.positions == "last":
        warnings.append(
            "it steers the whole prompt; the experiment begins at the last prompt token."
        )
    return warnings


def _whole_prompt(one: LoadedIntervention) -> list[str]:
    return _everywhere(one) if one.positions == "all" else []


def _features(one: LoadedIntervention) -> list[str]:
    return ["coefficients are of decoder rows of unit norm: divide by the norm of a raw row."]


def _own_dose(one: LoadedIntervention) -> list[str]:
    return [*_everywhere(one), "it multiplies by its own strength: set the multiplier to 1."]


def _no_table(one: LoadedIntervention) -> list[str]:
    return [
        *_everywhere(one),
        "its table of vectors is a file of torch.save, a format that can hold code and is not "
        "written here: make it from intervention.safetensors, of shape (n_layers, d_model).",
    ]


Writer = Callable[[LoadedIntervention, Path], str]
Warner = Callable[[LoadedIntervention], list[str]]
#: What writes each format, and what it cannot say.
WRITERS: Mapping[str, tuple[Writer, Warner]] = {
    "llama.cpp": (write_gguf, _everywhere),
    "EasySteer": (write_easysteer, _whole_prompt),
    "vllm-lens": (write_vllm_lens, _everywhere),
    "hotwire": (write_hotwire, _no_table),
    "lm-evaluation-harness": (
        write_lm_eval,
        lambda one: [*_everywhere(one), *_features(one), _CSV_IS_REFUSED],
    ),
    "Neuronpedia": (write_neuronpedia, _own_dose),
    "features": (write_features, _features),
}


def to_steering_vectors(one: LoadedIntervention) -> Any:
    """Return a ``steering_vectors.SteeringVector``; it steers from ``min_token_index`` on.

    Raises:
        ConfigError: if the package is not installed.
        UnsayableError: as :func:`block_vectors`.
    """
    import torch

    blocks = block_vectors(one)
    vectors = {k: torch.tensor(v, dtype=torch.float32) for k, v in blocks.items()}
    return _package("steering_vectors").SteeringVector(vectors, "decoder_block")


def to_lm_eval(one: LoadedIntervention) -> dict[str, dict[str, Any]]:
    """Return a steering file of lm-evaluation-harness as an object; write it with ``torch.save``.

    Raises:
        UnsayableError: as :func:`block_vectors`.
    """
    import torch

    return {
        hookpoint(one, block): {
            "action": "add",
            "steering_vector": torch.tensor(vector, dtype=torch.float32),
            "steering_coefficient": 1.0,
            "bias": None,
        }
        for block, vector in block_vectors(one).items()
    }


def steer_llama(llama: Any, one: LoadedIntervention | None) -> None:
    """Add the vector to every token that a ``llama_cpp.Llama`` reads from now on.

    It calls the function that the flag ``--control-vector`` of llama-server calls. What the object
    remembers of earlier prompts is forgotten, as that was computed without the vector.

    Args:
        llama: the model, as llama-cpp-python holds it; its server holds one too.
        one: the intervention, in place of an earlier one; None steers nothing any more.

    Raises:
        UnsayableError: as :func:`llama_cpp_layers`.
        ModelError: if the model has another width or depth.
    """
    api = _package("llama_cpp").llama_cpp
    llama.reset()
    depth, width = api.llama_model_n_layer(llama.model), api.llama_model_n_embd(llama.model)
    if one is None:
        api.llama_set_adapter_cvec(llama.ctx, None, 0, width, 0, 0)
        return
    wanted = one.facts["model"]
    if (depth, width) != (wanted["n_layers"], wanted["d_model"]):
        raise ModelError(
            f"the intervention was found in {wanted['id']}, which has {wanted['n_layers']} layers "
            f"of width {wanted['d_model']}; this model has {depth} of width {width}."
        )
    data = np.zeros((depth - 1, width), dtype=np.float32)
    for k, vector in llama_cpp_layers(one).items():
        data[k - 1] = vector  # the buffer begins at layer 1
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if api.llama_set_adapter_cvec(llama.ctx, pointer, data.size, width, 1, depth - 1):
        raise ModelError("llama.cpp does not take a control vector for this model.")


def hookpoint(one: LoadedIntervention, block: int) -> str:
    """Return the name of a block in the base model of transformers, such as ``layers.2``."""
    return f"{one.facts['model']['blocks_path'].partition('.')[2]}.{block}"


def to_repeng(one: LoadedIntervention) -> Any:
    """Return a ``repeng.ControlVector``; it steers every token.

    Raises:
        ConfigError: if the package is not installed.
        UnsayableError: as :func:`block_vectors`.
    """
    blocks = block_vectors(one)
    hint = model_hint(one.facts["model"]["architecture"])
    vectors = {k: v.astype(np.float32) for k, v in blocks.items()}
    return _package("repeng").ControlVector(hint, vectors)


def _package(name: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: if it is not installed, or does not work with the libraries here.
    """
    try:
        return import_module(name)
    except (ImportError, AttributeError) as error:  # repeng 0.4.0 names what numpy 2 removed
        raise ConfigError(f"{name} is not installed, or does not run here: {error}") from error
