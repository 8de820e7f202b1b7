"""The supervised baseline: fine-tuning on the rows that selection uses, whole or by LoRA."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from steering_core.corrsteer.examples import joined
from steering_core.errors import DataError, ModelError
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import tokenize
from steering_core.progress import progress

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import FineTuning
    from steering_core.config.schema import LoraSettings

log = logging.getLogger(__name__)

WARM_UP_STEPS = 100
WARM_UP_SHARE = 0.03
SMALL = 2000  # rows below which the published rate is halved


@dataclass(frozen=True)
class Trained:
    """A fine-tuned model, the peak of its learning rate and the loss of every step."""

    lm: LanguageModel
    learning_rate: float
    losses: list[float]


def learning_rate(settings: "FineTuning", n_rows: int) -> float:
    """Return the configured rate, or else the published one for this number of rows."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return 1e-5 if n_rows >= SMALL else 5e-6


def warm_up(n_steps: int) -> int:
    """Return the steps of warm-up: 100 or 3 % of the run, the larger, at most the whole run."""
    return min(n_steps, max(WARM_UP_STEPS, int(WARM_UP_SHARE * n_steps)))


def rate_share(step: int, n_steps: int) -> float:
    """Return the rate at a step as a share of its peak: linear warm-up, then a cosine to zero."""
    first = warm_up(n_steps)
    if step < first:
        return (step + 1) / first
    return 0.5 * (1.0 + math.cos(math.pi * (step - first) / max(1, n_steps - first)))


def training_ids(
    lm: LanguageModel,
    rows: pd.DataFrame,
    *,
    prepend_bos: bool,
    chat_template: bool = False,
    drop_long: bool = False,
) -> list[tuple[list[int], int]]:
    """Return ``(ids, prompt length)`` of each row: BOS, prompt, answer, end token.

    The answer follows the prompt as in the examples of a few-shot prompt: with a space between
    them if the prompt does not end in white space.

    Raises:
        DataError: if a row does not fit the context and ``drop_long`` is not set, or none does.
    """
    end = lm.tokenizer.eos_token_id
    prompts = rows["prompt"].tolist()
    answers = [joined(p, a) for p, a in zip(prompts, rows["worked"], strict=True)]
    front = tokenize(lm.tokenizer, prompts, prepend_bos=prepend_bos, control_tokens=chat_template)
    back = tokenize(lm.tokenizer, answers, prepend_bos=False)
    found = []
    for question, target in zip(front, back, strict=True):
        ids = question + target + ([] if end is None else [end])
        if len(ids) > lm.shape.context and not drop_long:
            raise DataError(
                f"a training row has {len(ids)} tokens with its answer, the model has "
                f"{lm.shape.context}: set long_prompts to drop."
            )
        if len(ids) <= lm.shape.context:
            found.append((ids, len(question)))
    if not found:
        raise DataError(f"no training row fits the model's {lm.shape.context} tokens.")
    if len(found) < len(rows):
        log.warning("%d training rows are too long and left out", len(rows) - len(found))
    return found


def fine_tune(
    lm: LanguageModel,
    rows: pd.DataFrame,
    settings: "FineTuning",
    *,
    seed: int,
    prepend_bos: bool,
    chat_template: bool = False,
    drop_long: bool = False,
) -> Trained:
    """Train on ``rows`` (``prompt, worked``) and return the model ready to answer.

    AdamW, one row a step, gradients clipped to norm 1, linear warm-up and a cosine to zero; the
    loss is on the answer alone. Method ``full`` changes the weights of ``lm`` in place. Training
    runs in float32, since steps of this size vanish in bfloat16; the result has the model's dtype.

    Raises:
        DataError: as :func:`training_ids`.
        ModelError: if a loss is NaN or infinite.
    """
    examples = training_ids(
        lm, rows, prepend_bos=prepend_bos, chat_template=chat_template, drop_long=drop_long
    )
    dtype = lm.dtype
    torch.manual_seed(seed)
    model = _trainable(lm.model.float(), settings)
    rate = learning_rate(settings, len(examples))
    losses = _train(
        model, _in_order(examples, settings.epochs, seed), rate, settings.weight_decay, lm.device
    )
    if settings.method == "lora":
        model = model.merge_and_unload()
    model = model.to(dtype).eval().requires_grad_(False)
    return Trained(replace(lm, model=model), rate, losses)


def _trainable(model: Any, settings: "FineTuning") -> Any:
    """Return the model with the parameters to train."""
    if settings.method == "full":
        return model.requires_grad_(True)
    return _with_adapter(model, settings.lora_rank, "all-linear")


def _with_adapter(model: Any, rank: int, modules: str | list[str]) -> Any:
    """Return the model with a new adapter, whose α is twice its rank.

    Raises:
        ModelError: if the model lacks a module.
    """
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM")
    try:
        return get_peft_model(model, config)
    except ValueError as error:  # peft names the modules that it did not find
        raise ModelError(f"lora.modules: {error}") from error


def _in_order(
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
    """Train an adapter to continue texts, as :func:`fine_tune` trains one to answer questions.

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
        raise DataError("lora: no training text of the target class has two tokens")
    torch.manual_seed(seed)
    model = _with_adapter(lm.model.float(), settings.rank, settings.modules)
    steps = _in_order(examples, settings.epochs, seed)
    losses = _train(model, steps, settings.learning_rate, settings.weight_decay, lm.device)
    weights = {
        name: value.detach().float().cpu().numpy()
        for name, value in get_peft_model_state_dict(model).items()
    }
    config = model.peft_config["default"].to_dict()
    config |= {"inference_mode": True, "target_modules": sorted(config["target_modules"])}
    return TrainedAdapter(weights, config, losses)


def _train(
    model: Any,
    steps: list[tuple[list[int], int]],
    rate: float,
    weight_decay: float,
    device: torch.device,
) -> list[float]:
    """Train on one row after another and return the loss of each."""
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
