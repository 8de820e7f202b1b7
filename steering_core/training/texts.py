"""The texts and layers that SAEs of a model are trained for, and what the fetch stage pins.

The fetch stage pins the model and the texts alone. Layers are added by the stage that caches
activations and by the job of a layer (:func:`with_sites`), so that one more layer does not train
the others again.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from steering_core.config.model import Model, SAETraining, TrainingTexts
from steering_core.data.columns import texts_of
from steering_core.data.sources import dataset_revision, read_rows
from steering_core.errors import ConfigError, DataError
from steering_core.hub.revisions import pin
from steering_core.models.language_model import load_shape, load_tokenizer
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens
from steering_core.runtime.machine import running_versions

log = logging.getLogger(__name__)

#: Held-out tokens: a tenth of the training tokens, and at most so many.
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 100_000
#: Texts that are tokenised at a time, until there are enough tokens.
_BLOCK = 4096
TRAIN, HELD_OUT = "train", "held_out"


def describe_training(model: Model, training: SAETraining, dtype: str) -> dict[str, Any]:
    """Pin a model, and check the layers to train SAEs for.

    Args:
        model: section of the configuration.
        training: its ``sae.train``.
        dtype: in which the model runs.

    Returns:
        What later stages need to know, in the form of ``resources.json`` of an experiment but
        without layers and sites: another layer changes nothing for those that are trained
        (:func:`steering_core.training.texts.with_sites` adds them).

    Raises:
        ConfigError: if a layer is not in the model, or texts are longer than its context.
        ModelError: if the configuration or the tokenizer cannot be loaded, with what to do.
    """
    shape = load_shape(model)
    check_layers(training.layers, shape.n_layers, model.id)
    if training.max_tokens > shape.context:
        raise ConfigError(
            f"sae.train.max_tokens: {training.max_tokens} exceeds the context {shape.context} of "
            f"{model.id}."
        )
    pinned = Model(**{**model.model_dump(), "revision": pin(model.id, model.revision)})
    return {
        "model": {"id": model.id, "revision": pinned.revision, "dtype": dtype},
        "shape": vars(shape),
        "prepend_bos": load_tokenizer(pinned).bos_token_id is not None,
        "sae_revision": "none: they are trained from this cache",
        "versions": running_versions(),
    }


def read_texts(sources: Sequence[TrainingTexts]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the texts of all datasets, each once, and the revision of each dataset.

    Raises:
        DataError: if a dataset cannot be read, or lacks a column.
        ModelError: if the hub refuses, with what to do.
    """
    texts: dict[str, None] = {}
    pinned = []
    for source in sources:
        revision = dataset_revision(source.dataset, source.revision)
        rows = read_rows(source.dataset, source.subset, source.split, revision)
        columns = [source.text] if isinstance(source.text, str) else source.text
        for column in columns:
            if column not in rows:
                raise DataError(
                    f"sae.train.texts: {source.dataset} has no column {column!r}; it has "
                    f"{list(rows.columns)}"
                )
        parts = [texts_of(rows[column], "sae.train.texts") for column in columns]
        joined = ("\n".join(part for part in row if part) for row in zip(*parts, strict=True))
        texts.update(dict.fromkeys(text for text in joined if text.strip()))
        pinned.append({"id": source.dataset, "revision": revision})
    return list(texts), pinned


def choose_texts(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prepend_bos: bool,
    tokens: int,
    max_tokens: int,
    seed: int,
) -> pd.DataFrame:
    """Return held-out texts and training texts, drawn at random, with enough tokens of each.

    BOS is no token to train on and does not count.

    Args:
        texts: each once.
        tokenizer: of the model.
        prepend_bos: whether BOS is put in front of each text.
        tokens: to train on.
        max_tokens: at which a text is cut, with BOS.
        seed: of the draw.

    Returns:
        A table of ``example_id``, ``text``, ``split`` (``train`` or ``held_out``), ``n_tokens``
        (with BOS).

    Raises:
        DataError: if the texts have too few tokens.
    """
    bos = int(prepend_bos and tokenizer.bos_token_id is not None)
    held_out = min(MOST_HELD_OUT, max(1, int(HELD_OUT_SHARE * tokens)))
    wanted = {HELD_OUT: held_out, TRAIN: tokens}
    found = dict.fromkeys(wanted, 0)
    order = np.random.default_rng(seed).permutation(len(texts))
    chosen: list[tuple[str, str, int]] = []
    for start in range(0, len(order), _BLOCK):
        block = [texts[i] for i in order[start : start + _BLOCK]]
        for text, length in zip(block, count_tokens(tokenizer, block, prepend_bos), strict=True):
            split = HELD_OUT if found[HELD_OUT] < held_out else TRAIN
            length = min(length, max_tokens)
            if found[TRAIN] >= tokens or length <= bos:
                continue
            chosen.append((text, split, length))
            found[split] += length - bos
        if found[TRAIN] >= tokens:
            break
    lacking = [split for split in wanted if found[split] < wanted[split]]
    if lacking:
        raise DataError(
            f"sae.train.texts: {len(texts)} different texts, cut at {max_tokens} tokens, have "
            f"{sum(found.values())} tokens; tokens: {tokens} and {held_out} held out need "
            f"{tokens + held_out}. Add datasets, raise max_tokens, or lower tokens."
        )
    table = pd.DataFrame(chosen, columns=["text", "split", "n_tokens"])
    table.insert(0, "example_id", [f"text-{i}" for i in range(len(table))])
    log.info("%d tokens to train on, %d held out", found[TRAIN], found[HELD_OUT])
    return table


def check_layers(layers: Iterable[int], n_layers: int, model_id: str) -> None:
    """Check that the model has the layers.

    Raises:
        ConfigError: naming the first that it has not.
    """
    missing = sorted(layer for layer in layers if layer >= n_layers)
    if missing:
        raise ConfigError(
            f"sae.train.layers: {missing[0]} is out of range, {model_id} has {n_layers} "
            f"layers (0 to {n_layers - 1})."
        )


def with_sites(resources: dict[str, Any], layers: Iterable[int]) -> dict[str, Any]:
    """Return what the fetch stage found, with ``layers`` and ``saes`` as other stages read them.

    An SAE is trained at the output of the block.

    Args:
        resources: of :func:`steering_core.training.texts.describe_training`.
        layers: to train SAEs for.

    Raises:
        ConfigError: as :func:`check_layers`.
    """
    ordered = sorted(layers)
    check_layers(ordered, resources["shape"]["n_layers"], resources["model"]["id"])
    sites = [Site(layer, "post", False, resources["prepend_bos"]) for layer in ordered]
    saes = [{"hook_name": site.hook_name, **site.to_dict()} for site in sites]
    return {**resources, "layers": ordered, "saes": saes}
