"""Train one SAE per layer of the demo's language model, with sae-lens' own trainer.

The site is the residual stream after each block (`blocks.{l}.hook_resid_post`), read by forward
hooks on the blocks, at every token but `<bos>`. The SAEs are BatchTopK in training and JumpReLU on
disk, with decoder rows of unit norm.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core.demo.language_model import read_texts
from steering_core.errors import ModelError
from steering_core.storage.files import atomic_directory, write_json

HELD_OUT = 0.1
"""Share of the documents that measure an SAE and do not train it."""


def residual_streams(
    model_dir: str | Path,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int = 128,
    device: str = "cpu",
) -> dict[int, Float[torch.Tensor, "tokens d_model"]]:
    """Return the residual stream after each of `layers`, at all tokens but `<bos>` and padding.

    One forward pass per batch serves all layers. Rows follow the texts' order.

    Raises:
        ModelError: a layer is not in the model.
    """
    model = AutoModelForCausalLM.from_pretrained(model_dir, use_safetensors=True)
    model = model.to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    blocks = model.model.layers
    for layer in layers:
        if not 0 <= layer < len(blocks):
            raise ModelError(f"layer {layer} is not among the model's layers 0..{len(blocks) - 1}")
    current: dict[int, torch.Tensor] = {}
    collected: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    # a block returns its output stream; hidden_states[-1] would be after the final norm
    handles = [
        blocks[layer].register_forward_hook(
            lambda _module, _inputs, output, layer=layer: current.__setitem__(layer, output)
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            for start in range(0, len(texts), batch_size):
                encoded = tokenizer(
                    list(texts[start : start + batch_size]),
                    return_tensors="pt",
                    padding=True,
                    return_token_type_ids=False,
                ).to(device)
                model.model(**encoded, use_cache=False)
                is_text = encoded["attention_mask"].bool()
                is_text &= encoded["input_ids"] != tokenizer.bos_token_id
                for layer in layers:
                    collected[layer].append(current[layer][is_text].cpu())
    finally:
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(parts) for layer, parts in collected.items()}


def train_saes(
    model_dir: str | Path,
    corpus: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    *,
    layers: Sequence[int] | None = None,
    d_sae: int = 256,
    k: float = 12,
    n_samples: int = 400_000,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    max_documents: int = 6000,
    model_name: str = "demo",
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Train an SAE for each layer and write `out_dir/layer_{l}/` and `out_dir/training.json`.

    Equal arguments give equal bytes on one machine with the same number of threads.

    Args:
        model_dir: directory written by `train_language_model`.
        corpus: Parquet files with a column `text`.
        out_dir: directory to write or replace, atomically. `layer_{l}` holds `cfg.json` and
            `sae_weights.safetensors` in the format of `sae_lens.SAE.load_from_disk`.
        layers: layers to cover; all of them if None.
        d_sae: number of features of an SAE.
        k: mean number of active features per token in training.
        n_samples: activations to train on; the cached ones are reshuffled and reused as needed.
        batch_size: activations per step.
        learning_rate: peak learning rate; it decays linearly to zero in the last fifth of steps.
        max_documents: at most this many documents, drawn at random, are cached.
        model_name: recorded in the SAEs' metadata.
        seed: seed of weights, documents and order.
        device: torch device.

    Returns:
        The content of `training.json`. It describes, for each `layer_{l}`, the SAE reloaded from
        disk on held-out tokens: `l0` (mean number of active features), `explained_variance`
        (1 − residual / total variance), `dead_features` (number of features that are never active)
        and `n_tokens`.

    Raises:
        ModelError: a layer is not in the model.
        DataError: there is no text.
    """
    texts = read_texts(corpus)
    rng = np.random.default_rng(seed)
    texts = [texts[i] for i in rng.permutation(len(texts))[:max_documents]]
    n_held_out = max(1, int(HELD_OUT * len(texts)))
    if layers is None:
        config = json.loads((Path(model_dir) / "config.json").read_text(encoding="utf-8"))
        layers = range(config["num_hidden_layers"])
    test = residual_streams(model_dir, texts[:n_held_out], layers, device=device)
    train = residual_streams(model_dir, texts[n_held_out:], layers, device=device)
    report: dict[str, dict[str, float]] = {}
    with atomic_directory(out_dir) as temporary:
        for layer in layers:
            metadata = SAEMetadata(
                model_name=model_name,
                hook_name=f"blocks.{layer}.hook_resid_post",
                prepend_bos=True,
                context_size=AutoTokenizer.from_pretrained(model_dir).model_max_length,
            )
            name = f"layer_{layer}"
            config = BatchTopKTrainingSAEConfig(
                d_in=train[layer].shape[1],
                d_sae=d_sae,
                k=k,
                device=device,
                normalize_activations="expected_average_only_in",
                metadata=metadata,
            )
            sae = _fit(config, train[layer], n_samples, batch_size, learning_rate, seed + layer)
            _save(sae, temporary / name)
            report[name] = measure(SAE.load_from_disk(temporary / name), test[layer])
        write_json(temporary / "training.json", report)
    return report


def measure(sae: SAE, activations: Float[torch.Tensor, "tokens d_model"]) -> dict[str, float]:
    """Return `l0`, `explained_variance`, `dead_features` and `n_tokens` of an SAE on a sample."""
    with torch.no_grad():
        features = sae.encode(activations.to(sae.device))
        error = (sae.decode(features).cpu() - activations).double().pow(2).sum()
    total = (activations - activations.mean(0)).double().pow(2).sum()
    active = features > 0
    return {
        "l0": float(active.sum(1).double().mean()),
        "explained_variance": float(1.0 - error / total),
        "dead_features": int((~active.any(0)).sum()),
        "n_tokens": len(activations),
    }


def _fit(
    config: BatchTopKTrainingSAEConfig,
    activations: Float[torch.Tensor, "tokens d_model"],
    n_samples: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> BatchTopKTrainingSAE:
    n_steps = max(1, n_samples // batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = BatchTopKTrainingSAE(config)
        trainer = SAETrainer(
            SAETrainerConfig(
                total_training_samples=n_steps * batch_size,
                train_batch_size_samples=batch_size,
                lr=learning_rate,
                lr_end=learning_rate / 10,
                lr_warm_up_steps=min(50, n_steps // 10),
                lr_decay_steps=n_steps // 5,
                device=config.device,
                dead_feature_window=100,
                n_batches_for_norm_estimate=10,
                logger=LoggingConfig(log_to_wandb=False),
            ),
            sae,
            _batches(activations, batch_size, seed),
        )
        return trainer.fit()


def _batches(
    activations: Float[torch.Tensor, "tokens d_model"], batch_size: int, seed: int
) -> Iterator[Float[torch.Tensor, "batch d_model"]]:
    """Yield shuffled batches without end; the last, short batch of an epoch is dropped."""
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(activations))
    while True:
        order = torch.randperm(len(activations), generator=generator)
        for start in range(0, len(activations) - size + 1, size):
            yield activations[order[start : start + size]]


def _save(sae: BatchTopKTrainingSAE, path: Path) -> None:
    _, config_path = sae.save_inference_model(path)
    # sae-lens writes the keys in an order that differs from run to run
    write_json(config_path, json.loads(config_path.read_text(encoding="utf-8")))
