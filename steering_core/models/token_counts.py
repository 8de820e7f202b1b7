"""How long texts are as a fetched model will read them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from steering_core.config.model import Model
from steering_core.models.language_model import load_tokenizer
from steering_core.models.resources import pinned_model
from steering_core.models.tokens import count_tokens, naming_special_tokens

log = logging.getLogger(__name__)


def token_counter(model: Model, resources: dict[str, Any]) -> Callable[[Sequence[str]], list[int]]:
    """Return a function that gives the tokens of each text, with BOS where the SAE wants it.

    The function warns of texts that name special tokens: they are read as plain text.

    Args:
        model: section of the configuration.
        resources: what the fetch stage found of it; the weights need not be here.

    Raises:
        ModelError: if the tokenizer cannot be loaded, or a local model was changed since.

    """
    tokenizer = load_tokenizer(pinned_model(model, resources))
    prepend_bos = resources["saes"][0]["prepend_bos"]

    def count(texts: Sequence[str]) -> list[int]:
        named = sum(naming_special_tokens(tokenizer, texts))
        if named:
            log.warning(
                "%d of %d texts name special tokens of the tokenizer, such as <|endoftext|>: they "
                "are read as plain text",
                named,
                len(texts),
            )
        return count_tokens(tokenizer, texts, prepend_bos)

    return count
