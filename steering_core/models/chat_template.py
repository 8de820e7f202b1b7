"""Texts as the user's turn of a chat template: what a model tuned to chat expects to read."""

from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from steering_core.errors import ConfigError

#: Stands for the text where a template is looked at. No template changes it.
_MARK = "QUESTION"


def uses_chat_template(setting: Literal["auto"] | bool, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether texts stand in a chat template: with ``auto``, where the tokenizer has one.

    Raises:
        ConfigError: if the setting is true and the tokenizer has none.
    """
    if setting == "auto":
        return bool(tokenizer.chat_template)
    if setting and not tokenizer.chat_template:
        raise ConfigError(
            "chat_template: the tokenizer of this model has none: set it to auto or false."
        )
    return setting


def user_turns(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Return each text as the user's turn, followed by what opens the assistant's turn."""
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in texts
    ]


def around_the_turn(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what the template writes before and after the user's text.

    Raises:
        ConfigError: if the template does not write the text as it is.
    """
    (whole,) = user_turns(tokenizer, [_MARK])
    before, found, after = whole.partition(_MARK)
    if not found:
        raise ConfigError(
            "chat_template: the template of this tokenizer does not hold the user's text as it "
            "is: set chat_template to false."
        )
    return before, after
