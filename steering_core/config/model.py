"""The models of the configuration, with their SAEs."""

from typing import Literal

from pydantic import model_validator

from steering_core.config.closed import Closed


class SAESource(Closed):
    """A sae-lens SAE per layer, by release and id or by directory; ``{layer}`` is filled in.

    Without ``{layer}`` it is the SAE of the one layer that the settings name.
    """

    release: str | None = None
    id: str | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SAESource":
        if (self.path is None) == (self.release is None) or (self.release is None) != (
            self.id is None
        ):
            raise ValueError("give either release and id, or path")
        template = self.template
        try:
            filled = template.format(layer=0)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{template!r} may contain {{layer}} and no other braces") from error
        if "{" in filled or "}" in filled:
            raise ValueError(f"{template!r} may contain {{layer}} and no other braces")
        return self

    @property
    def template(self) -> str:
        """The id or path, with ``{layer}`` where the number of a layer goes."""
        return str(self.path or self.id)

    @property
    def by_layer(self) -> bool:
        """Whether there is an SAE for each of several layers."""
        return "{layer" in self.template


class Model(Closed):
    """A Hugging Face causal language model, by hub id or local directory, with its SAEs."""

    id: str
    revision: str = "main"
    sae: SAESource
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    settings: dict = {}
