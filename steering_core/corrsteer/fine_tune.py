"""The supervised baseline: fine-tuning on the rows that selection uses, whole or by LoRA."""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from steering_core.corrsteer.examples import joined
from steering_core.errors import DataError
from steering_core.models.language_model import LanguageModel
from steering_core.models.tokens import tokenize
from steering_core.training.fine_tuning import in_order, train, with_adapter

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import FineTuning

log = logging.getLogger(__name__)

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
    losses = train(
        model, in_order(examples, settings.epochs, seed), rate, settings.weight_decay, lm.device
    )
    if settings.method == "lora":
        model = model.merge_and_unload()
    model = model.to(dtype).eval().requires_grad_(False)
    return Trained(replace(lm, model=model), rate, losses)


def _trainable(model: Any, settings: "FineTuning") -> Any:
    """Return the model with the parameters to train."""
    if settings.method == "full":
        return model.requires_grad_(True)
    return with_adapter(model, settings.lora_rank, "all-linear")
