"""A model with its SAEs, as configured; and the base class of all sections of ``config.yaml``.

Stages that run a model build this section. The other sections are in files of their own, so that
an edit of them does not make the code of these stages stale.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Closed(BaseModel):
    """Base of all sections of ``config.yaml``. It refuses unknown keys and is read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_flags(cls, value: Any, info: ValidationInfo) -> Any:
        if cls.model_fields[str(info.field_name)].annotation is bool:
            return value
        # YAML reads yes, no, on and off as booleans, and Python accepts True as the number 1.
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, bool) for entry in entries):
            raise ValueError("must not be a boolean (YAML reads yes, no, on, off as booleans)")
        return value


class SAESource(Closed):
    """The SAEs of a model, one for each layer, in the format of sae-lens.

    Either ``release`` and ``id`` name them on the hub, or ``path`` names local directories.
    ``{layer}`` in the id or path is replaced by the number of the layer. Without ``{layer}`` there
    is one SAE only, and the settings must name its layer.
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
        """The id or path, with ``{layer}`` in place of the number of a layer."""
        return str(self.path or self.id)

    @property
    def by_layer(self) -> bool:
        """Whether the source has SAEs of several layers."""
        return "{layer" in self.template


class Model(Closed):
    """A causal language model of Hugging Face with its SAEs. ``id`` is a hub id or a directory."""

    id: str
    revision: str = "main"
    sae: SAESource
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    settings: dict = {}
