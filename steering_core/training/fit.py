"""Train an SAE on activations with sae-lens's own trainer, and save it for inference.

The training SAE is made by name. An SAE that chooses its features over a whole batch (BatchTopK)
is saved as a JumpReLU SAE, with decoder rows of unit norm.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import (
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

from steering_core.config.model import WHOLE
from steering_core.errors import ModelError
from steering_core.progress import counter
from steering_core.storage.files import write_json

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
