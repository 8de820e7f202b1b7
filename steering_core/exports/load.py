"""Load an intervention, from an export or from the row of an experiment's tables, and apply it.

::

    steering = load_intervention("results/demo", method="qp_adaptive")
    with steering.apply(model, tokenizer):
        model.generate(**inputs)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase
from transformers.generation import GenerationMode

from steering_core.errors import ModelError, StorageError
from steering_core.exports.attach import (
    Attached,
    FixedVector,
    SolvedProgram,
    attach,
    refuse_other_first_passes,
)
from steering_core.exports.from_results import DECODER, dictionary_of, read_row
from steering_core.generation.intervention import Positions
from steering_core.methods.gates import Gate
from steering_core.methods.solution_vectors import ProgramLogit
from steering_core.models.language_model import LanguageModel, ModelShape, find_blocks
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.optimize.working_set.bounds import Guards
from steering_core.storage.arrays import load_arrays
from steering_core.storage.files import read_json
from steering_core.storage.integrity import content_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Version of the two files of an export.
FORMAT = "steering-core intervention 3"
#: The files of an export that hold what is applied.
FACTS, ARRAYS = "intervention.json", "intervention.safetensors"
PATH = "path.safetensors"
#: The generation modes of the decode loop that transformers uses for greedy decoding and sampling.
_SAMPLED = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)


@dataclass(frozen=True)
class LoadedIntervention:
    """An intervention that can be applied to a plain model of transformers.

    Attributes:
        at: what is added at each site, in residual-stream units.
        facts: what ``intervention.json`` says: method, strength, model, sites, positions, dose.
    """

    at: Mapping[Site, FixedVector | SolvedProgram]
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def positions(self) -> Positions:
        """Which prompt tokens are steered."""
        return self.facts["positions"]

    @contextmanager
    def apply(
        self,
        model: "PreTrainedModel",
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        positions: Positions | None = None,
        steer_bos: bool = False,
        check_name: bool = True,
    ) -> Iterator[Attached]:
        """Steer ``model`` inside the block: ``generate``, a pipeline, or a forward pass.

        The first pass of ``generate``, and every pass without a cache outside of it, is a prompt.
        It is steered at its last token, or at all its tokens (``positions``), padding never. Later
        tokens are all steered. A program that is solved for each prompt reads the residual at the
        prompt's last token. Blocks can be nested: vectors add up, and a program reads the residual
        that the blocks around it leave.

        Args:
            model: loaded with ``AutoModelForCausalLM``. It is unchanged after the block.
            tokenizer: its tokenizer, to know BOS.
            positions: ``last`` or ``all``; by default as in the experiment.
            steer_bos: steer BOS too, as llama.cpp does. The experiments never do.
            check_name: refuse a model of another name. Set it to False for the same weights under
                another name.

        Raises:
            ModelError: if the model does not fit, or a pass cannot be steered.
        """
        if positions not in (None, "last", "all"):
            raise ValueError(f"positions must be 'last' or 'all', got {positions!r}")
        lm = fitting_model(model, tokenizer, self.facts["model"], check_name)
        with attach(
            model, tokenizer, lm, dict(self.at), positions or self.positions, steer_bos
        ) as applied:
            yield applied

    def custom_generate(
        self, tokenizer: PreTrainedTokenizerBase | None = None, **options: Any
    ) -> Callable[..., Any]:
        """Return a function for ``model.generate(custom_generate=…)``: it steers one call.

        Greedy decoding and sampling are those of ``generate``.

        Args:
            tokenizer: as in :meth:`apply`.
            options: as in :meth:`apply`.

        Raises:
            ModelError: from the returned function, as :meth:`apply`, or for beam search.
        """

        def steered(model: "PreTrainedModel", input_ids: Any, **kwargs: Any) -> Any:
            config = kwargs["generation_config"]
            refuse_other_first_passes(config, {})
            if config.get_generation_mode() not in _SAMPLED:
                raise ModelError(
                    "custom_generate decodes greedily or samples: set num_beams to 1, or call "
                    "generate inside `with steering.apply(model)`."
                )
            with self.apply(model, tokenizer, **options) as applied:
                return applied.decode(lambda: model._sample(input_ids, **kwargs))

        return steered


@contextmanager
def apply_all(
    interventions: Sequence[LoadedIntervention],
    model: "PreTrainedModel",
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: Any,
) -> Iterator[list[Attached]]:
    """Apply several interventions in one block. Vectors at one site add up.

    Args:
        interventions: the first is the outermost: a program reads the residual that the ones
            before it leave.
        model: as of :meth:`LoadedIntervention.apply`.
        tokenizer: as there.
        options: as there, the same for all.

    Raises:
        ModelError: as there.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(one.apply(model, tokenizer, **options)) for one in interventions]


def load_intervention(
    source: str | Path,
    method: str | None = None,
    strength: float | None = None,
    *,
    strength_index: int | None = None,
) -> LoadedIntervention:
    """Load an intervention.

    Args:
        source: the directory of an export, or of an experiment (``results/{experiment}``).
        method: of an experiment: the method, the plan, the declared program or the gated method.
        strength: of an experiment: the strength as its tables give it; by default the selected
            one. It is in the units of the table, and they are resolved here.
        strength_index: of an experiment: the number of the strength, where several rows have the
            same ``strength``.

    Raises:
        StorageError: if a file is missing or damaged.
        DataError: if there is no such row, or it adds nothing.
    """
    source = Path(source)
    if (source / FACTS).is_file():
        if method is not None or strength is not None or strength_index is not None:
            raise ValueError("method: an export is of one method and strength; leave them out")
        return _read_export(source)
    if method is None:
        raise StorageError(
            f"{source} has no {FACTS}: give the directory of an export, or the directory of an "
            "experiment and a `method`."
        )
    at, facts = read_row(source, method, strength, strength_index)
    return LoadedIntervention(at, facts)


def _read_export(directory: Path) -> LoadedIntervention:
    facts = read_json(directory / FACTS)
    if facts.get("format") != FORMAT:
        raise StorageError(f"{directory / FACTS} is not of this version: export it again.")
    for name, digest in facts["digests"].items():
        file = directory / name
        if not file.is_file() or content_digest(file) != digest:
            raise StorageError(f"{file} is missing or was changed: export it again.")
    arrays, _ = load_arrays(directory / ARRAYS)
    sites = [Site(**site["site"]) for site in facts["sites"]]
    program, gate = facts["program"], None
    if facts["gate"] is not None:
        gate = Gate(arrays["gate.weight"], float(arrays["gate.bias"][0]))
    if program is None:
        at = {site: FixedVector(arrays[f"vector.{k}"], gate) for k, site in enumerate(sites)}
        return LoadedIntervention(at, facts)
    weight, bias, guards = arrays["logit.weight"], arrays["logit.bias"], None
    if "guards.directions" in arrays:
        names = [guard["name"] for guard in facts["margin"]["guards"]]
        guards = Guards.of(arrays["guards.directions"], arrays["guards.kappa"], names)
    logit = ProgramLogit(
        program["name"],
        weight,
        float(bias[0]) if weight.ndim == 1 else bias,
        arrays.get("metric"),
        arrays.get("cost"),
        guards,
        program["mode"],
    )
    inside, path = dictionary_of(logit, directory / DECODER), None
    if (directory / PATH).is_file():
        path = SteeringPath.load(directory / PATH, inside.decoder)
    parameter = math.nan if program["parameter"] is None else program["parameter"]
    solved = SolvedProgram(logit, program["tau"], parameter, inside, path, gate)
    return LoadedIntervention({sites[0]: solved}, facts)


def fitting_model(
    model: "PreTrainedModel",
    tokenizer: PreTrainedTokenizerBase | None,
    wanted: Mapping[str, Any],
    check_name: bool = True,
) -> LanguageModel:
    """Return ``model`` as this package sees it, if the intervention fits it.

    Raises:
        ModelError: if width, layer count or name differ, or it has no one stack of blocks.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(f"{type(model).__name__} is no model of transformers: load it with "
                         "AutoModelForCausalLM.")  # fmt: skip
    text = config.get_text_config()
    found = {"n_layers": text.num_hidden_layers, "d_model": text.hidden_size}
    for key, what in (("d_model", "wide"), ("n_layers", "layers deep")):
        if found[key] != wanted[key]:
            raise ModelError(
                f"the intervention was found in {wanted['id']}, which is {wanted[key]} {what}; "
                f"this model is {found[key]}: load {wanted['id']}."
            )
    name = str(getattr(config, "_name_or_path", "") or "")
    if check_name and name and _short(name) != _short(wanted["id"]):
        raise ModelError(
            f"the intervention was found in {wanted['id']}, and this model is {name}: a vector of "
            "one model means nothing in another. If they have the same weights, give "
            "check_name=False."
        )
    shape = ModelShape(
        found["n_layers"],
        found["d_model"],
        wanted.get("context", 0),
        find_blocks(model, name or type(model).__name__),
        type(model).__name__,
    )
    return LanguageModel(model, tokenizer, shape)


def _short(name: str) -> str:
    """Return the last part of a model's name; that of a snapshot in the hub's cache, too."""
    parts = [part for part in Path(name).parts if part not in ("/", ".")]
    for part in parts:
        if part.startswith("models--"):
            return part.split("--")[-1].lower()
    return parts[-1].lower() if parts else Path(name).resolve().name.lower()
