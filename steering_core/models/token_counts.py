"""How long texts are as a fetched model will read them."""

from collections.abc import Callable, Sequence
from typing import Any

from steering_core.config.model import Model
from steering_core.models.language_model import load_tokenizer
from steering_core.models.resources import pinned_model
from steering_core.models.tokens import count_tokens


def token_counter(model: Model, resources: dict[str, Any]) -> Callable[[Sequence[str]], list[int]]:
    """Return a function that gives the tokens of each text, with BOS where the SAE wants it.

    Args:
        model: section of the configuration.
        resources: what the fetch stage found of it; the weights need not be here.

    Raises:
        ModelError: if the tokenizer cannot be loaded, or a local model was changed since.

    """
    tokenizer = load_tokenizer(pinned_model(model, resources))
    return lambda texts: count_tokens(tokenizer, texts, resources["saes"][0]["prepend_bos"])
