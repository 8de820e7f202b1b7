"""Train the SAE of a layer with sae-lens's own trainer, and save it for inference.

:func:`train_layer` is the job: it reads the cached activations, trains the SAE (:func:`train_sae`)
and evaluates it. The training SAE is made by name. An SAE that chooses its features over a whole
batch (BatchTopK) is saved as a JumpReLU SAE, with decoder rows of unit norm.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatchingPursuitTrainingSAE,
    MatchingPursuitTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata, TrainingSAE
from sae_lens.training.sae_trainer import SAETrainer

from steering_core.activations.manifest import check_origin, origin
from steering_core.activations.reader import ActivationCache
from steering_core.config.model import WHOLE, SAETraining
from steering_core.data.examples import read_examples
from steering_core.errors import ModelError, StorageError
from steering_core.models.devices import DTYPES, choose_device
from steering_core.models.language_model import LanguageModel
from steering_core.models.resources import cached_sites
from steering_core.progress import counter
from steering_core.storage.files import atomic_directory, write_json
from steering_core.training.evaluate_sae import measure_loss, measure_texts
from steering_core.training.texts import HELD_OUT, TRAIN

#: Training SAEs of sae-lens by architecture: the class, its configuration, and the key of the
#: configuration that sets how sparse it is.
TRAINERS: dict[str, tuple[Any, Any, str]] = {
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, "k"),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, "k"),
    "matryoshka_batchtopk": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        "k",
    ),
    "matching_pursuit": (
        MatchingPursuitTrainingSAE,
        MatchingPursuitTrainingSAEConfig,
        "max_iterations",
    ),
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, "l1_coefficient"),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig, "l1_coefficient"),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, "l0_coefficient"),
}
#: Steps after which the weights are looked at for NaN.
_CHECK_EVERY = 50


def train_sae(
    activations: Float[torch.Tensor, "tokens d_model"],
    *,
    d_sae: int,
    sparsity: float,
    metadata: dict[str, Any],
    architecture: str = "batchtopk",
    n_samples: int,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
) -> TrainingSAE:
    """Train an SAE. Equal arguments give equal weights on one machine and number of threads.

    The input is scaled to a mean norm of √d_model in training; the factor is folded into the
    weights at the end.

    Args:
        activations: to train on, in any precision; they are reshuffled and reused as needed.
        d_sae: number of features.
        sparsity: mean number of active features of a token, or the coefficient of the penalty of
            an architecture that has one.
        metadata: recorded in the SAE, with ``hook_name`` and ``prepend_bos``.
        architecture: key of :data:`TRAINERS`.
        n_samples: activations to train on.
        batch_size: activations of a step.
        learning_rate: peak; it decays linearly to a tenth in the last fifth of the steps.
        seed: of weights and order.
        device: torch device.

    Raises:
        ModelError: if a weight becomes NaN or infinite.
    """
    made, configuration, key = TRAINERS[architecture]
    options: dict[str, Any] = {key: int(sparsity) if architecture in WHOLE else sparsity}
    if architecture == "matryoshka_batchtopk":  # nested dictionaries, each half of the next
        widths = {max(1, d_sae >> i) for i in range(5)}
        options["matryoshka_widths"] = sorted(widths)
    if architecture == "matching_pursuit":  # as sae-lens does itself, with a warning
        options["decoder_init_norm"] = 1.0
    n_steps = max(1, n_samples // batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = made(
            configuration(
                d_in=activations.shape[1],
                d_sae=d_sae,
                device=device,
                normalize_activations="expected_average_only_in",
                metadata=SAEMetadata(**metadata),
                **options,
            )
        )
        trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=n_steps * batch_size,
                train_batch_size_samples=batch_size,
                lr=learning_rate,
                lr_end=learning_rate / 10,
                lr_warm_up_steps=min(50, n_steps // 10),
                lr_decay_steps=n_steps // 5,
                device=device,
                dead_feature_window=100,
                n_batches_for_norm_estimate=10,
                logger=LoggingConfig(log_to_wandb=False),
            ),
            sae,
            _watched(sae, batches(activations, batch_size, seed), n_steps * batch_size),
        )
        trained = trainer.fit()
    _check_finite(trained, n_steps)
    return trained


def batches(
    activations: Float[torch.Tensor, "tokens d_model"], batch_size: int, seed: int
) -> Iterator[Float[torch.Tensor, "batch d_model"]]:
    """Yield shuffled batches in float32 without end; the short last one of an epoch is dropped."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(activations))
    while True:
        order = torch.randperm(len(activations), generator=generator)
        for start in range(0, len(activations) - size + 1, size):
            yield activations[order[start : start + size]].float()


def save_sae(sae: TrainingSAE, path: Path) -> None:
    """Write ``cfg.json`` and ``sae_weights.safetensors`` as sae-lens loads them for inference."""
    _, config_path = sae.save_inference_model(path)
    # sae-lens writes the keys in an order that differs from run to run
    write_json(config_path, json.loads(config_path.read_text(encoding="utf-8")))


def _watched(
    sae: TrainingSAE, given: Iterator[torch.Tensor], total: int
) -> Iterator[Float[torch.Tensor, "batch d_model"]]:
    """Yield ``given``; show how far training is, and look at the weights now and then."""
    with counter(total, "training the SAE", unit="tokens") as tick:
        for step, batch in enumerate(given):
            if step % _CHECK_EVERY == 0:
                _check_finite(sae, step)
            yield batch
            tick(len(batch))


def _check_finite(sae: TrainingSAE, step: int) -> None:
    for name, weight in sae.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"{name} of the SAE became NaN or infinite before step {step}: lower "
                "sae.train.learning_rate."
            )


# ----------------------------------------------------------------------------- the job of a layer
#: Tokens of held-out texts whose loss is measured with the reconstruction spliced in.
LOSS_TOKENS = 20_000


def train_layer(
    training: SAETraining,
    layer: int,
    resources: dict[str, Any],
    manifest: str | Path,
    texts: str | Path,
    sae_folder: str | Path,
    measured: str | Path,
    *,
    name: str,
    load: Callable[[], LanguageModel],
    device: str,
) -> None:
    """Train the SAE of ``layer``, write it in sae-lens's format, and write its evaluation.

    Args:
        training: ``sae.train`` of the model.
        layer: one of its layers.
        resources: what the fetch stage of the training found, with the site of the layer
            (:func:`steering_core.training.texts.with_sites`).
        manifest: of the cache of activations, which may have further layers.
        texts: the table of texts; the cache must be of it.
        sae_folder: directory to write.
        measured: JSON file to write: a row of ``sparse_autoencoders.csv``.
        name: of the model in the configuration.
        load: loads the model, which is needed at the end alone.
        device: as configured.

    Raises:
        ModelError: if training diverges.
        StorageError: if the cache is damaged, or of something else.
    """
    (site,) = (site for site in cached_sites(resources) if site.layer == layer)
    cache = ActivationCache(manifest)
    # It may have further layers.
    expected = {k: v for k, v in origin(resources, texts).items() if k != "sites"}
    check_origin(cache.manifest, expected, manifest)
    table = read_examples(texts)
    dtype = DTYPES[resources["model"]["dtype"]]
    train, _ = read_split(cache, table, site.hook_name, TRAIN, dtype, bos=site.prepend_bos)
    n_samples = training.samples or training.tokens
    where = str(choose_device(device))
    options = training.model_dump(include={"architecture", "d_sae", "batch_size", "learning_rate"})
    sparsity = training.k if training.k is not None else training.sparsity
    sae = train_sae(
        train,
        sparsity=sparsity,
        n_samples=n_samples,
        seed=training.seed + layer,
        device=where,
        metadata={
            "model_name": resources["model"]["id"],
            "model_revision": resources["model"]["revision"],
            "model_dtype": resources["model"]["dtype"],
            "hook_name": site.hook_name,
            "prepend_bos": site.prepend_bos,
            "context_size": training.max_tokens,
            "dataset_path": ", ".join(one["id"] for one in resources["dataset"]),
            "training": training.model_dump(exclude={"layers", "texts"}),
            "training_tokens": len(train),
        },
        **options,
    )
    n_training = len(train)
    del train
    with atomic_directory(sae_folder) as temporary:
        save_sae(sae, temporary)
        saved = SAE.load_from_disk(temporary, device=where).eval()
        held_out, text_of = read_split(
            cache, table, site.hook_name, HELD_OUT, dtype, bos=site.prepend_bos
        )
        numbers = measure_texts(saved, held_out, text_of, seed=training.seed)
        held = table[table["split"] == HELD_OUT]
        numbers |= measure_loss(
            load(),
            saved,
            site,
            held["text"][held["n_tokens"].cumsum() - held["n_tokens"] < LOSS_TOKENS].tolist(),
            max_tokens=training.max_tokens,
            batch_tokens=training.batch_tokens,
            seed=training.seed,
        )
    row = {
        "model": name,
        "layer": layer,
        "hook_name": site.hook_name,
        "d_in": saved.cfg.d_in,
        "n_training_tokens": n_training,
        "n_samples": n_samples // training.batch_size * training.batch_size,
        **training.model_dump(include={"architecture", "d_sae", "k", "sparsity"}),
        **numbers,
    }
    write_json(measured, row)


def read_split(
    cache: ActivationCache,
    texts: pd.DataFrame,
    hook_name: str,
    split: str,
    dtype: torch.dtype,
    *,
    bos: bool,
) -> tuple[Float[torch.Tensor, "tokens d_model"], np.ndarray]:
    """Return the activations of a split, and for each token the row of its text.

    Args:
        cache: of all tokens.
        texts: the table of texts, with ``split`` and ``n_tokens``.
        hook_name: of the site.
        split: ``train`` or ``held_out``.
        dtype: of the model; the cache has its values in float32, so nothing is lost.
        bos: whether the first token of a text is BOS, which is left out.

    Raises:
        StorageError: if the cache does not have all tokens of the split.
    """
    wanted = pa.array(texts["example_id"].where(texts["split"] == split).dropna())
    n = int(texts["n_tokens"][texts["split"] == split].sum()) - bos * len(wanted)
    out: torch.Tensor | None = None
    text_of, filled = np.empty(n, np.int64), 0
    for names, positions, residuals in cache.tokens(hook_name):
        at = pc.index_in(names, wanted)
        rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False) & (positions >= bos))
        if out is None:
            out = torch.empty(n, residuals.shape[1], dtype=dtype)
        end = filled + len(rows)
        out[filled:end] = torch.from_numpy(residuals[rows]).to(dtype)
        text_of[filled:end] = pc.fill_null(at, -1).to_numpy()[rows]
        filled = end
    if out is None or filled != n:
        raise StorageError(f"the cache has {filled} tokens of {split}, {n} were expected.")
    return out, text_of
