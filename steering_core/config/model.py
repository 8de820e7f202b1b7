"""A model with its SAEs, as configured; and the base class of all sections of ``config.yaml``.

Stages that run a model build this section. The other sections are in files of their own, so that
an edit of them does not make the code of these stages stale.
"""

from typing import Annotated, Any, Literal, get_args

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
        annotation = cls.model_fields[str(info.field_name)].annotation
        if bool in (annotation, *get_args(annotation)):
            return value
        # YAML reads yes, no, on and off as booleans, and Python accepts True as the number 1.
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, bool) for entry in entries):
            raise ValueError("must not be a boolean (YAML reads yes, no, on, off as booleans)")
        return value


class TrainingTexts(Closed):
    """A dataset whose texts train SAEs. Several columns are joined by a line end."""

    dataset: str
    revision: str = "main"
    subset: str | None = None
    split: str = "train"
    text: str | Annotated[list[str], Field(min_length=1)]


#: sae-lens trainers whose sparsity is a number of active features.
BY_COUNT = ("batchtopk", "topk", "matryoshka_batchtopk", "matching_pursuit")
#: Those whose number is one of steps, so that it must be whole.
WHOLE = ("topk", "matching_pursuit")


class SAETraining(Closed):
    """How the rules train an SAE for each of ``layers``, at the output of the block.

    ``tokens`` different tokens of the texts are cached, and an SAE is trained on ``samples`` of
    them (by default each once). ``architecture`` names the trainer of sae-lens. ``k`` is the mean
    number of active features of those that choose by count (of matching pursuit the largest); the
    others have a coefficient ``sparsity`` of their penalty. A text is cut at ``max_tokens``.
    """

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    d_sae: Count
    tokens: Count
    texts: Annotated[list[TrainingTexts], Field(min_length=1)]
    architecture: Literal[
        "batchtopk",
        "topk",
        "matryoshka_batchtopk",
        "matching_pursuit",
        "standard",
        "gated",
        "jumprelu",
    ] = "batchtopk"
    k: Positive | None = None
    sparsity: Positive | None = None
    samples: Count | None = None
    batch_size: Count = 512
    learning_rate: Positive = 1e-3
    max_tokens: Annotated[int, Field(ge=2)] = 128
    batch_tokens: Count = 2048
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _fits(self) -> "SAETraining":
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers has an entry twice")
        by_count = self.architecture in BY_COUNT
        if by_count != (self.k is not None) or by_count == (self.sparsity is not None):
            wanted, other = ("k", "sparsity") if by_count else ("sparsity", "k")
            raise ValueError(f"{self.architecture} needs {wanted}, and {other} has no effect")
        if self.k is not None and self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, but d_sae is {self.d_sae}")
        if self.architecture in WHOLE and self.k != int(self.k or 0):
            raise ValueError(f"{self.architecture} needs a whole number as k")
        if self.tokens < self.batch_size:
            raise ValueError(f"tokens is {self.tokens}, below batch_size: {self.batch_size}")
        return self


class SAESource(Closed):
    """The SAEs of a model, one for each layer, in the format of sae-lens.

    ``release`` and ``id`` name them on the hub, ``path`` names local directories, or ``train`` has
    the rules train them. ``{layer}`` in the id or path is replaced by the number of the layer.
    Without ``{layer}`` there is one SAE only, and the settings must name its layer. ``{l0}`` in the
    id is replaced by a number of its own for each layer: ``l0`` lists them from layer 0 on, or is
    one number, and each layer takes the SAE of the release that is nearest to it.
    """

    release: str | None = None
    id: str | None = None
    l0: Count | Annotated[list[Count], Field(min_length=1)] | None = None
    path: str | None = None
    train: SAETraining | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SAESource":
        if self.train is not None:
            if (self.release, self.id, self.path, self.l0) != (None,) * 4:
                raise ValueError("train makes the SAEs: leave out release, id and path")
            return self
        if (self.path is None) == (self.release is None) or (self.release is None) != (
            self.id is None
        ):
            raise ValueError("give either release and id, or path, or train")
        template = self.template
        other = "no other braces" if self.path else "{l0} and no other braces"
        try:
            filled = template.format(layer=0, **({} if self.path else {"l0": 0}))
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{template!r} may contain {{layer}} and {other}") from error
        if "{" in filled or "}" in filled:
            raise ValueError(f"{template!r} may contain {{layer}} and {other}")
        if ("{l0}" in template) != (self.l0 is not None):
            raise ValueError("l0 and {l0} in the id belong together: give both or neither")
        if self.l0 is not None and not self.by_layer:
            raise ValueError(f"{template!r} has {{l0}} and no {{layer}}: write the number itself")
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
    """A causal language model of Hugging Face with its SAEs.

    ``id`` is a hub id, a directory, or a GGUF file: a path, or ``package:NAME/FILE.gguf`` for a
    file inside an installed Python package. ``revision`` of a GGUF file is ``sha256:`` and its
    digest, if it is to be checked. ``dtype: auto`` is bfloat16 where the hardware computes in it,
    else float32.
    """

    id: str
    revision: str = "main"
    sae: SAESource
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    settings: dict = {}
