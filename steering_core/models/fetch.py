"""Resolve, download and check everything an experiment takes from outside, before any compute.

Both halves fetch in the same two steps. :func:`describe` pins revisions and compares the
configurations of model and SAEs, which are small. :func:`download` then downloads the weights.
"""

import logging
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoTokenizer

from steering_core.config.model import Model, SAESource
from steering_core.config.task import Classifier
from steering_core.errors import ConfigError, ModelError
from steering_core.hub.errors import explain_hub_errors
from steering_core.hub.revisions import pin
from steering_core.models.devices import choose_dtype
from steering_core.models.gguf_file import origin_of
from steering_core.models.language_model import (
    ModelShape,
    is_local,
    load_config,
    load_shape,
    load_tokenizer,
)
from steering_core.models.sae_source import (
    SAEShape,
    layers_with_sae,
    load_sae_shape,
    local_sae_revision,
    no_such_sae,
    pinned_sae,
    sae_repository,
)
from steering_core.models.sparse_autoencoder import load_sae
from steering_core.models.tokens import check_special_tokens
from steering_core.runtime.machine import running_versions
from steering_core.storage.files import read_json

log = logging.getLogger(__name__)

#: Files of a repository that transformers may read.
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

#: Names of TransformerLens that differ from those of the hub.
_ALIASES = {"gpt2-small": "gpt2"}

#: Layers of the configuration.
Layers = Literal["all"] | Sequence[int]


def describe(
    model: Model,
    *,
    layers: Layers,
    max_tokens: int | None,
    new_tokens: int,
    first_layer: int = 0,
    steered_layer: int | None = None,
    texts_are_continued: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Pin a model and its SAEs, and compare their configurations.

    Args:
        model: section of the configuration.
        layers: whose SAEs are wanted; ``all`` takes every layer with an SAE.
        max_tokens: longest text; None for as much of the context as ``new_tokens`` leave.
        new_tokens: that the model generates.
        first_layer: where ``all`` begins.
        steered_layer: must be one of the layers; None if none is chosen yet.
        texts_are_continued: whether ``new_tokens`` must fit behind a text of ``max_tokens``.
        device: of the later stages; it decides what ``dtype: auto`` is.

    Returns:
        What later stages need to know: the content of ``resources.json``.

    Raises:
        ConfigError: if the configuration does not fit the model or the SAEs.
        ModelError: if something cannot be loaded, with what to do.

    """
    shape = load_shape(model)
    chosen, missing = choose_layers(
        model, shape.n_layers, layers, first=first_layer, steered=steered_layer
    )
    saes = [load_sae_shape(model.sae, layer) for layer in chosen]
    for sae, layer in zip(saes, chosen, strict=True):
        _check_fit(sae, layer, shape, model)
    _compare_model_names(saes, model)
    if max_tokens is None:
        max_tokens = shape.context - new_tokens
    if max_tokens > shape.context:
        raise ConfigError(
            f"max_tokens: {max_tokens} exceeds the context {shape.context}: lower it."
        )
    if new_tokens >= shape.context:
        raise ConfigError(
            f"new_tokens: {new_tokens} exceeds the context {shape.context}: lower it."
        )
    if texts_are_continued and max_tokens + new_tokens > shape.context:
        raise ConfigError(
            f"max_tokens {max_tokens} and {new_tokens} new tokens exceed the context "
            f"{shape.context} of {model.id}: lower one of them."
        )
    pinned = Model(**{**model.model_dump(), "revision": pin(model.id, model.revision)})
    _check_tokenizer(pinned, saes)
    dtype, origin = choose_dtype(model.dtype, device), origin_of(model.id)
    if model.dtype == "auto":
        log.info("dtype: auto is %s here, for every stage of this experiment", dtype)
    return {
        "model": {"id": model.id, "revision": pinned.revision, "dtype": dtype},
        **({} if origin is None else {"gguf": origin}),
        "shape": vars(shape),
        "layers": chosen,
        "layers_without_sae": missing,
        "max_tokens": max_tokens,
        "saes": [
            {
                "name": sae.name,
                "hook_name": sae.site.hook_name,
                **sae.site.to_dict(),
                "d_sae": sae.d_sae,
                "neuronpedia_id": sae.neuronpedia_id,
            }
            for sae in saes
        ],
        "sae_revision": _sae_revision(model.sae, chosen),
        "versions": running_versions(),
    }


def describe_judge(classifier: Classifier | None) -> dict[str, Any] | None:
    """Return what judges completions: a lexicon, a pinned classifier, or None.

    Raises:
        ConfigError, ModelError: as :func:`describe_classifier`.
    """
    if classifier is None:
        return None
    if classifier.builtin == "vader":
        return {"vader": version("vadersentiment")}
    if classifier.api is not None:
        return {"url": classifier.api.url, "name": classifier.api.model}
    if classifier.model is None:
        return {"lexicon": classifier.lexicon}
    return describe_classifier(classifier.model, classifier.revision, classifier.label)


def describe_classifier(
    repository: str, revision: str = "main", label: str | None = None
) -> dict[str, Any]:
    """Pin a classifier and make sure that it has ``label``, if one is given.

    Raises:
        ConfigError: if it has no such label.
        ModelError: if its configuration cannot be loaded, with what to do.
    """
    commit = pin(repository, revision)
    if label is None:
        return {"model": repository, "revision": commit}
    names = load_config(repository, commit).id2label
    labels = sorted(str(name) for name in names.values())
    if label.lower() not in [name.lower() for name in labels]:
        raise ConfigError(f"classifier.label: {repository} has no {label!r}; it has {labels}.")
    return {"model": repository, "revision": commit, "label": label}


def download(
    model: Model,
    found: dict[str, Any],
    layers: Sequence[int],
    check_classifier: Callable[[], object] | None = None,
) -> dict[str, int]:
    """Download the weights, the smallest first: of the classifier, of SAEs, of the model.

    Args:
        model: section of the configuration.
        found: by :func:`describe`, with a ``classifier`` from :func:`describe_judge`.
        layers: whose SAEs are downloaded now.
        check_classifier: called as soon as the classifier is downloaded.

    Returns:
        The numbers of parameters of the ``model`` and of the largest of the ``judges``.

    Raises:
        ModelError: if something cannot be loaded, with what to do.

    """
    classifier, judges = found["classifier"], [0]
    if classifier is not None and "model" in classifier:
        judges.append(_fetch_judge(classifier))
        if check_classifier is not None:
            check_classifier()
    for judge in found.get("further_judges", []):
        if "model" in judge:
            judges.append(_fetch_judge(judge))
    for layer in layers:  # one SAE in memory at a time
        load_sae(model.sae, layer)
    if layers:
        pinned_sae(model, found)  # sae-lens has no revisions: it took the present `main`
    own = fetch_weights(found["model"]["id"], found["model"]["revision"])
    return {"model": own, "judges": max(judges)}


def _fetch_judge(judge: dict[str, Any]) -> int:
    """Download a judge; return its number of parameters.

    Raises:
        ModelError: if it has no padding token, so that it could not read a batch of texts.
    """
    parameters = fetch_weights(judge["model"], judge["revision"])
    with explain_hub_errors(judge["model"]):
        tokenizer = AutoTokenizer.from_pretrained(judge["model"], revision=judge["revision"])
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{judge['model']}: the tokenizer of this classifier has no padding token, so texts of "
            "different lengths cannot be judged together: choose another one, or a local copy "
            "whose tokenizer_config.json names a pad_token."
        )
    return parameters


def choose_layers(
    model: Model,
    n_layers: int,
    layers: Layers,
    *,
    first: int = 0,
    steered: int | None = None,
) -> tuple[list[int], list[int]]:
    """Return the wanted layers that have an SAE, and those of ``all`` that have none.

    Args:
        model: section of the configuration.
        n_layers: of the model.
        layers: as configured.
        first: where ``all`` begins.
        steered: must be one of the layers; None if none is chosen yet.

    Raises:
        ConfigError: if a layer is out of range or has no SAE, no layer has one, or the steered
            layer is not among the layers.

    """
    every = layers == "all"
    if model.sae.by_layer or (every and steered is None):
        available = layers_with_sae(model.sae, n_layers)
    else:  # one SAE alone; the configuration is checked to name its layer
        available = [steered] if every else list(layers)
    if not available:
        raise no_such_sae(model.sae, "{layer}")
    wanted = list(range(first, n_layers)) if every else sorted(set(layers))
    named = [*([] if every else wanted), *([] if steered is None else [steered])]
    for layer in named:
        if layer >= n_layers:
            raise ConfigError(
                f"layer: {layer} is out of range, {model.id} has {n_layers} layers (0 to "
                f"{n_layers - 1})."
            )
        if layer not in available:
            raise ConfigError(f"layer: there is no SAE for {layer}; there are {available}.")
    chosen = [layer for layer in wanted if layer in available]
    if not chosen:
        raise ConfigError(
            f"layers: {available} is the only layer with an SAE, and `all` begins at layer "
            f"{first}: name it in `layers`."
        )
    if steered is not None and steered not in chosen:
        raise ConfigError(f"layer: {steered} is not in layers {chosen}: add it.")
    return chosen, [layer for layer in wanted if layer not in available]


def _check_fit(sae: SAEShape, layer: int, shape: ModelShape, model: Model) -> None:
    if sae.d_in != shape.d_model:
        raise ModelError(
            f"{sae.name} is for residual streams of width {sae.d_in}, {model.id} has "
            f"{shape.d_model}: this SAE belongs to another model."
        )
    if sae.site.layer != layer:
        raise ModelError(
            f"{sae.name} sits at {sae.site.hook_name}, not at layer {layer}: check "
            "{layer} in the SAE's id or path."
        )


def same_model(said: str, model_id: str) -> bool:
    """Whether an SAE's ``model_name`` is the model ``model_id``, by the last part of both names.

    A local directory may have the name anywhere in its path.
    """
    short = _ALIASES.get(Path(said).name.lower(), Path(said).name.lower())
    parts = [part.lower() for part in Path(model_id).parts]
    return said == model_id or short in (parts if is_local(model_id) else parts[-1:])


def _compare_model_names(saes: list[SAEShape], model: Model) -> None:
    other = [sae for sae in saes if sae.model_name and not same_model(sae.model_name, model.id)]
    if other:
        log.warning(
            "%s was trained on activations of %s%s, and the model is %s: what its features mean "
            "there is an assumption.",
            other[0].name,
            other[0].model_name,
            f" (as were {len(other) - 1} more SAEs)" if len(other) > 1 else "",
            model.id,
        )


def _check_tokenizer(model: Model, saes: list[SAEShape]) -> None:
    """Check the special tokens against the vocabulary; warn if an SAE wants a missing BOS."""
    tokenizer = load_tokenizer(model)
    size = getattr(load_config(model.id, model.revision).get_text_config(), "vocab_size", None)
    if isinstance(size, int):
        check_special_tokens(tokenizer, size, model.id)
    wanting = [sae.name for sae in saes if sae.site.prepend_bos]
    if wanting and tokenizer.bos_token_id is None:
        log.warning(
            "%s was trained on texts with BOS in front%s, and the tokenizer of %s has no BOS "
            "token: nothing is prepended, as in sae-lens.",
            wanting[0],
            f" (as were {len(wanting) - 1} more)" if len(wanting) > 1 else "",
            model.id,
        )


def _sae_revision(source: SAESource, layers: list[int]) -> str:
    repository = sae_repository(source, layers[0])
    if repository is None:
        return local_sae_revision(source, layers)
    return pin(repository, "main")


def fetch_weights(repository: str, revision: str) -> int:
    """Download the files of a hub repository that transformers loads, and check its weights.

    Returns:
        The number of parameters, from which the rules know what memory a job needs.

    Raises:
        ModelError: as :func:`require_safetensors`, or if the hub refuses, with what to do.

    """
    folder = repository
    if not is_local(repository):
        with explain_hub_errors(repository):
            folder = snapshot_download(repository, revision=revision, allow_patterns=_FILES)
    return _parameters(require_safetensors(Path(folder), repository))


def _parameters(files: list[Path]) -> int:
    """Return the number of parameters in files of weights; their headers alone are read."""
    count = 0
    for path in files:
        with safe_open(path, "np") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return count


def require_safetensors(folder: Path, name: str) -> list[Path]:
    """Make sure that ``folder`` has weights that later stages can load, and return their files.

    Raises:
        ModelError: if there are none in safetensors, or a part that the index lists is missing.

    """
    named = read_json(folder / "config.json").get("transformers_weights")
    files = [folder / file for file in ([named] if named else [_SINGLE, _INDEX])]
    there = next((file for file in files if file.is_file()), None)
    if there is None:
        raise ModelError(
            f"{name} has no weights in safetensors ({' or '.join(file.name for file in files)}), "
            "and no other format is loaded here, as it can run code. Choose another repository or "
            "`revision`, or convert the weights once with transformers' save_pretrained and give "
            "that directory. (Without a network, run the fetch rule where there is one, with the "
            "same HF_HOME.)"
        )
    if there.suffix == ".json":
        parts: list[str] = sorted(set(read_json(there)["weight_map"].values()))
        missing = [part for part in parts if not (folder / part).is_file()]
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} of {len(parts)} files of weights, the first is "
                f"{missing[0]}: the copy is incomplete."
            )
        return [folder / part for part in parts]
    return [there]
