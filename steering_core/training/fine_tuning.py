"""Fine-tuning of a language model by one loop: the weights themselves, or a LoRA adapter.

CorrSteer's supervised baseline and the method ``lora`` are trained by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from steering_core.errors import DataError, ModelError
from steering_core.models.language_model import LanguageModel
from steering_core.progress import progress

if TYPE_CHECKING:
    from steering_core.config.schema import LoraSettings

WARM_UP_STEPS = 100
WARM_UP_SHARE = 0.03


def warm_up(n_steps: int) -> int:
    """Return the steps of warm-up: 100 or 3 % of the run, the larger, at most the whole run."""
    return min(n_steps, max(WARM_UP_STEPS, int(WARM_UP_SHARE * n_steps)))


def rate_share(step: int, n_steps: int) -> float:
    """Return the rate at a step as a share of its peak: linear warm-up, then a cosine to zero."""
    first = warm_up(n_steps)
    if step < first:
        return (step + 1) / first
    return 0.5 * (1.0 + math.cos(math.pi * (step - first) / max(1, n_steps - first)))


def with_adapter(model: Any, rank: int, modules: str | list[str]) -> Any:
    """Return the model with a new adapter, whose α is twice its rank.

    Raises:
        ModelError: if the model lacks a module.
    """
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")
    try:
        return get_peft_model(model, config)
    except ValueError as error:  # peft names the modules that it did not find
        raise ModelError(f"lora.modules: {error}") from error


def in_order(
    examples: Sequence[tuple[list[int], int]], epochs: int, seed: int
) -> list[tuple[list[int], int]]:
    """Return the examples of all steps: in another order each epoch."""
    rng = np.random.default_rng([seed, 6])
    order = np.concatenate([rng.permutation(len(examples)) for _ in range(epochs)])
    return [examples[i] for i in order]


@dataclass(frozen=True, eq=False)
class TrainedAdapter:
    """A LoRA adapter as peft stores it, and the loss of every step.

    Attributes:
        weights: by peft's names.
        config: of ``adapter_config.json``.
        losses: in nats per token.
    """

    weights: dict[str, np.ndarray]
    config: dict[str, Any]
    losses: list[float]


def fit_adapter(
    lm: LanguageModel,
    texts: Sequence[list[int]],
    settings: "LoraSettings",
    *,
    seed: int,
    prepend_bos: bool,
) -> TrainedAdapter:
    """Train an adapter to continue texts, as CorrSteer's fine-tuning does to answer questions.

    The loss is on every token of a text but BOS. ``lm`` must not be used afterwards.

    Args:
        lm: the model.
        texts: token ids, BOS included if there is one.
        settings: rank, epochs, learning rate and modules.
        seed: of the adapter's first weights and of the order of the texts.
        prepend_bos: whether the texts begin with BOS.

    Raises:
        DataError: if there is no text of two tokens.
        ModelError: if the model lacks a module, or a loss is NaN or infinite.
    """
    begins = int(prepend_bos and lm.tokenizer.bos_token_id is not None)
    # Without BOS nothing predicts the first token.
    examples = [(ids, max(begins, 1)) for ids in texts if len(ids) > 1]
    if not examples:
        raise DataError(
            "lora: no training text of the target class has two tokens: use longer texts"
        )
    torch.manual_seed(seed)
    model = with_adapter(lm.model.float(), settings.rank, settings.modules)
    steps = in_order(examples, settings.epochs, seed)
    losses = train(model, steps, settings.learning_rate, settings.weight_decay, lm.device)
    weights = {
        name: value.detach().float().cpu().numpy()
        for name, value in get_peft_model_state_dict(model).items()
    }
    config = model.peft_config["default"].to_dict()
    config |= {"inference_mode": True, "target_modules": sorted(config["target_modules"])}
    return TrainedAdapter(weights, config, losses)


def train(
    model: Any,
    steps: list[tuple[list[int], int]],
    rate: float,
    weight_decay: float,
    device: torch.device,
) -> list[float]:
    """Train with AdamW on one row after another and return the loss of each, in nats per token.

    Args:
        model: with the parameters to train; they are changed in place.
        steps: token ids, and how many of them are read but not learned, in the order of training.
        rate: largest learning rate.
        weight_decay: of AdamW.
        device: where the model is.

    Raises:
        ModelError: if a loss is not finite.
    """
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=rate,
        weight_decay=weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_share(step, len(steps))
    )
    model.train()
    losses = []
    for ids, n_prompt in progress(steps, "fine-tuning"):
        inputs = torch.tensor([ids], device=device)
        labels = inputs.clone()
        labels[:, :n_prompt] = -100
        kept = len(ids) - n_prompt + 1  # the prompt's last token predicts the answer's first
        loss = model(
            input_ids=inputs, labels=labels[:, -kept:], use_cache=False, logits_to_keep=kept
        ).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ModelError(
                f"the loss of fine-tuning is {losses[-1]} at step {len(losses)} of {len(steps)}: "
                "lower the learning_rate."
            )
    return losses
