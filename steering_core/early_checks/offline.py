"""All that is wrong with an experiment and can be known without a network, listed at once."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steering_core.config.methods import LORA
from steering_core.config.references import check_paths, named_paths
from steering_core.config.task import Task
from steering_core.data.concept import Concept, check_prompts, read_concept
from steering_core.early_checks.fetch_stage import check_adapter, check_lexicon
from steering_core.errors import ConfigError, DataError, ModelError, SteeringError

if TYPE_CHECKING:
    from steering_core.config.schema import Experiment

T = TypeVar("T")

#: A larger dataset is left to the fetch stage, so that a dry run stays fast. In bytes.
_LARGEST = 32 * 2**20
#: More layers than any model has.
_LAYERS = 256
#: Keys of a model's configuration that may give its largest number of positions, in this order.
#: :mod:`steering_core.models.language_model` reads the same, but takes seconds to import.
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def check_before_any_job(
    experiment: "Experiment", dataset: str, made: Callable[[str], bool]
) -> None:
    """List everything that is wrong with an experiment and can be known without a network.

    Args:
        experiment: of either half, with its merged settings.
        dataset: the dataset of its task.
        made: whether a rule makes a path. Such a path is not looked at.

    Raises:
        ConfigError: with one line for each problem.
    """
    lines = BeforeAnyJob(experiment, dataset, made).problems()
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        listed = "".join(f"\n  - {line}" for line in lines)
        message = f"{experiment.name} has {len(lines)} problems:{listed}"
        raise ConfigError(message).of(lines)


class BeforeAnyJob:
    """The checks of one experiment. A failed check does not stop those after it."""

    def __init__(self, experiment: "Experiment", dataset: str, made: Callable[[str], bool]) -> None:
        self.experiment, self.dataset, self.made = experiment, dataset, made
        self.settings, self.task = experiment.settings, experiment.task
        self.lines: list[str] = []
        layers = getattr(self.settings, "layers", "all")
        steered = getattr(self.settings, "layer", "auto")
        #: Layers that the settings name; none if all layers with an SAE are used.
        self.layers = list(layers) if isinstance(layers, list) else []
        self.layers += [steered] if isinstance(steered, int) else []
        self.by_effect = steered == "effect"
        self.layers += self.settings.effect_layers if self.by_effect else []

    def problems(self) -> list[str]:
        """Return the problems, each as one line."""
        self._note(lambda: check_paths(named_paths(self.experiment, self.dataset), self.made))
        if isinstance(self.task, Task):
            self._check_task(self.task)
        self._note(self._check_model)
        self._note(self._check_room)
        self._check_saes()
        self._note(self._check_training)
        return self.lines

    def _note(self, check: Callable[[], T]) -> T | None:
        """Return what ``check`` returns; keep its problems if it raises."""
        try:
            return check()
        except SteeringError as error:
            lines = [" ".join(line.split()) for line in error.problems or (str(error),)]
            self.lines += [line for line in lines if line not in self.lines]
            return None

    def _is_own_file(self, name: str | None) -> bool:
        return name is not None and not self.made(name) and Path(name).is_file()

    def _is_small_file(self, name: str) -> bool:
        return self._is_own_file(name) and Path(name).stat().st_size <= _LARGEST

    def _check_task(self, task: Task) -> None:
        texts = None
        if self.by_effect and task.classifier is None:
            self.lines.append(
                "layer: effect needs a judge of completions, and the task has no classifier"
            )
        if Path(task.concept).is_file():
            texts = self._note(lambda: read_concept(task.concept))
        if texts is not None:
            self._note(lambda: check_prompts(texts, self.settings))
        for program in self.settings.programs.values():
            for file in program.guarding_concepts:
                if self._is_own_file(file):
                    self._note(partial(read_concept, file))
        if task.classifier is not None and self._is_own_file(task.classifier.lexicon):
            self._note(lambda: check_lexicon(task))
        if self._is_small_file(self.dataset):
            self._note(lambda: self._check_rows(task, texts))

    def _check_rows(self, task: Task, texts: Concept | None) -> None:
        """Read columns, labels and classes of a local dataset, and split its rows.

        Lengths in tokens are left to the fetch stage, which has the tokenizer: here every text
        counts as one token.
        """
        from steering_core.data.build import build_examples
        from steering_core.data.labelled import labelled_rows, read_table

        rows = labelled_rows(read_table(task), task)
        if texts is not None:
            log = logging.getLogger("steering_core.data")
            before = log.level
            log.setLevel(logging.ERROR)  # the stage that makes the table warns
            try:
                build_examples(
                    rows,
                    texts,
                    self.settings,
                    lambda some: [1] * len(some),
                    questions=task.question is not None,
                )
            finally:
                log.setLevel(before)

    def _check_model(self) -> None:
        """Refuse a local model without ``config.json``, and a layer that it does not have."""
        name, config = self.experiment.model.id, self._local_configuration()
        sizes = [config[key] for key in ("num_hidden_layers", "n_layer") if key in config]
        if config and LORA in getattr(self.settings, "methods", ()):
            self._note(partial(check_adapter, self.settings, name, None))
        high = [layer for layer in self.layers if sizes and layer >= sizes[0]]
        if high:
            raise ModelError(
                f"the model {name} has the layers 0 to {sizes[0] - 1}, so there is no layer "
                f"{high[0]}: set `layer` or `layers` to others."
            )

    def _local_configuration(self) -> dict[str, Any]:
        """Return what ``config.json`` of a local model says of its text model; {} on the hub."""
        name = self.experiment.model.id
        if self.made(name) or not Path(name).is_dir():
            return {}
        config = self._json_object(Path(name) / "config.json", f"the model {name}")
        return config.get("text_config", config)

    def _positions(self) -> int | None:
        """Return the context of the model, from its directory or from an earlier fetch."""
        if self.made(self.experiment.model.id):
            return None  # an earlier fetch may have seen another
        config = self._local_configuration()
        found = [config[key] for key in CONTEXTS if isinstance(config.get(key), int)]
        own = Path("results", self.experiment.name)
        trained = Path("results", "models", self.experiment.model_name)
        for folder in (own, own / "corrsteer", trained):
            file = folder / "resources.json"
            if file.is_file() and not found:
                found += _fetched_context(file, self.experiment.model.id)
        return found[0] if found else None

    def _check_room(self) -> None:
        """Refuse lengths that the context of the model has no room for, as the fetch stage does.

        The fetch stage does so before it downloads the weights, but it comes after the training of
        SAEs, and a new length does not make it run again.
        """
        context = self._positions()
        if context is not None:
            self.lines += lacks_room(self.experiment, context)

    def _check_training(self) -> None:
        """Check the columns of local texts for SAEs, and that the texts can have enough tokens.

        No tokenizer is at hand. A token has one byte or more, so texts have at most as many tokens
        as bytes, and one more each if the tokenizer puts a space in front.

        Raises:
            DataError: if a column is missing, or there are fewer tokens than ``tokens``.
        """
        from steering_core.data.sources import read_file

        training = self.experiment.model.sae.train
        if training is None:
            return
        texts: set[str] = set()
        for source in training.texts:
            if not self._is_small_file(source.dataset):
                return  # the stage that trains says how many tokens there are
            columns = [source.text] if isinstance(source.text, str) else source.text
            rows = read_file(source.dataset)
            if missing := [column for column in columns if column not in rows]:
                raise DataError(
                    f"sae.train.texts: {source.dataset} has no column {missing[0]!r}; it has "
                    f"{list(rows.columns)}"
                )
            parts = rows[columns].fillna("").astype(str)
            texts.update("\n".join(row) for row in parts.itertuples(index=False, name=None))
        most = sum(min(len(text.encode()) + 1, training.max_tokens) for text in texts)
        if most < training.tokens:
            raise DataError(
                f"sae.train.tokens: {training.tokens} are asked for, and the {len(texts)} "
                f"different texts of sae.train.texts cannot have more than {most}. Add general "
                "texts, or lower tokens and set samples, so that they are used more than once."
            )

    def _check_saes(self) -> None:
        """Check every local SAE that the experiment uses."""
        sae = self.experiment.model.sae
        if sae.path is None or self.made(sae.path.format(layer=0)):
            return
        named = [sae.path.format(layer=layer) for layer in self.layers or range(_LAYERS)]
        for folder in map(Path, dict.fromkeys(named)):
            # A missing folder of a named layer is among the paths.
            if folder.is_dir() and (self.layers or (folder / "cfg.json").is_file()):
                self._note(partial(self._check_sae, folder))
                self._note(partial(self._check_sae_weights, folder))

    def _check_sae(self, folder: Path) -> None:
        from steering_core.models.sae_metadata import check_kind, check_metadata

        file = folder / "cfg.json"
        raw = self._json_object(file, f"the SAE {folder}")
        if "num_latents" in raw and "architecture" not in raw:
            return  # the layout of sparsify, which the fetch stage reads
        flat = check_metadata(raw, str(file))
        check_kind({**flat, "metadata": flat}, str(folder))

    def _check_sae_weights(self, folder: Path) -> None:
        names = ("sae_weights.safetensors", "sae.safetensors")  # the second is sparsify's
        if not any((folder / name).is_file() for name in names):
            raise ModelError(
                f"the SAE {folder} has no sae_weights.safetensors. docs/models.md shows how to "
                "write SAEs of other libraries in this form."
            )

    def _json_object(self, file: Path, what: str) -> dict[str, Any]:
        if not file.is_file():
            raise ModelError(f"{what} has no {file.name}. docs/models.md says what it must hold.")
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{file} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ModelError(f"{file} must hold a JSON object of settings.")
        return value


def _fetched_context(file: Path, model: str) -> list[int]:
    """Return the context in ``resources.json``, or nothing if it is of another model."""
    try:
        fetched = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return []  # the stages that need the file refuse it; fetching again must remain possible
    return [fetched["shape"]["context"]] if fetched["model"]["id"] == model else []


def lacks_room(experiment: "Experiment", context: int) -> list[str]:
    """Return what is too long for a model of so many positions, a line for each."""
    longest, name = experiment.settings.max_tokens, experiment.model.id
    new, lines = most_new_tokens(experiment), []
    if new >= context:
        lines.append(
            f"new_tokens: {new} leave no room for a prompt in the {context} positions of {name}: "
            "lower it."
        )
    if longest is not None and longest > context:
        lines.append(f"max_tokens: {longest} exceeds the {context} positions of {name}: lower it.")
    continued = not isinstance(experiment.task, Task)
    if not lines and continued and longest is not None and longest + new > context:
        lines.append(
            f"max_tokens {longest} and {new} new tokens exceed the {context} positions of {name}: "
            "lower one of them."
        )
    return lines


def most_new_tokens(experiment: "Experiment") -> int:
    """Return how many tokens a text of an experiment of either half gets at most."""
    settings = experiment.settings
    if settings.new_tokens is not None:
        return settings.new_tokens
    from steering_core.corrsteer.read_items import configured_task

    return configured_task(experiment.task).length(reasoned=settings.chain_of_thought)
