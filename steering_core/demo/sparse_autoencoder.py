"""Train one SAE per layer of the demo's language model, as the rules train those of any model.

The site is the residual stream after each block (`blocks.{l}.hook_resid_post`), read by forward
hooks on the blocks, at every token but `<bos>`. The SAEs are BatchTopK in training and JumpReLU on
disk, with decoder rows of unit norm.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from transformers import AutoModelForCausalLM, AutoTokenizer

from steering_core.demo.language_model import read_texts
from steering_core.errors import ModelError
from steering_core.storage.files import atomic_directory, write_json
from steering_core.training.fit import measure, save_sae, train_sae

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
            name = f"layer_{layer}"
            sae = train_sae(
                train[layer],
                d_sae=d_sae,
                sparsity=k,
                metadata={
                    "model_name": model_name,
                    "hook_name": f"blocks.{layer}.hook_resid_post",
                    "prepend_bos": True,
                    "context_size": AutoTokenizer.from_pretrained(model_dir).model_max_length,
                },
                n_samples=n_samples,
                batch_size=batch_size,
                learning_rate=learning_rate,
                seed=seed + layer,
                device=device,
            )
            save_sae(sae, temporary / name)
            report[name] = measure(SAE.load_from_disk(temporary / name), test[layer])
        write_json(temporary / "training.json", report)
    return report
