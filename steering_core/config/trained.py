"""Models whose SAEs the rules train: where the SAEs lie, and what the stages see of them.

A stage that uses such SAEs reads them like any others, from a local path. So it does not depend on
how they were trained, only on their content.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from steering_core.config.model import Model
from steering_core.errors import ConfigError

ModelT = TypeVar("ModelT", bound=Model)

#: Where the rules write what belongs to a model alone.
FOLDER = "results/models"


def sae_path(name: str) -> str:
    """Return the path of the SAEs of the model ``name``, with ``{layer}`` in it."""
    return f"{FOLDER}/{name}/sparse_autoencoders/layer_{{layer}}"


def with_path(name: str, model: ModelT) -> ModelT:
    """Return ``model`` with the path of its SAEs if the rules train them.

    ``sae.train`` stays, so that the rules still see that the SAEs are made here.

    Args:
        name: of the model in the configuration.
        model: its section.
    """
    if model.sae.train is None or model.sae.path is not None:
        return model
    sae = model.sae.model_copy(update={"path": sae_path(name)})
    return model.model_copy(update={"sae": sae})


def trained_layers(
    where: str,
    model: Model,
    layers: Sequence[int] | Literal["all"],
    steered: int | Literal["auto", "effect"] = "auto",
    *,
    first: int = 0,
) -> list[int] | Literal["all"]:
    """Return the layers of an experiment; of a model whose SAEs the rules train, only trained ones.

    Beside the SAEs may lie others of an earlier configuration. So ``all`` is not left to what is
    found on disk.

    Args:
        where: the experiment, for messages.
        model: of the experiment.
        layers: as configured.
        steered: the layer that is steered, if the configuration says which.
        first: where ``all`` begins.

    Raises:
        ConfigError: if a layer is none of ``sae.train.layers``.
    """
    if model.sae.train is None:
        return layers
    trained = sorted(model.sae.train.layers)
    every = layers == "all"
    wanted = [layer for layer in trained if layer >= first] if every else list(layers)
    for layer in [*wanted, *([steered] if isinstance(steered, int) else [])]:
        if layer not in trained:
            raise ConfigError(
                f"{where}: layer {layer} is not among sae.train.layers: {trained}. Add it there, "
                "or take one of these."
            )
    if not wanted:
        raise ConfigError(
            f"{where}: layers: all begins at layer {first}, and sae.train.layers is {trained}: "
            "name the layer in `layers`."
        )
    return wanted


def trained_models(*sections: Mapping[str, Model]) -> dict[str, Model]:
    """Return the models whose SAEs the rules train, by name, each :func:`with_path`.

    Args:
        sections: ``models`` and ``corrsteer.models``. A name in both stands for one model.

    Raises:
        ConfigError: if two sections of one name would train different SAEs.
    """
    found: dict[str, Model] = {}
    for name, model in _pairs(sections):
        if model.sae.train is None:
            continue
        if name in found and _trains(found[name]) != _trains(model):
            raise ConfigError(
                f"models.{name} and corrsteer.models.{name} train SAEs of one name from different "
                "id, revision, dtype or sae.train: leave these out in the second, which then has "
                "those of the first, or rename one of them."
            )
        found.setdefault(name, with_path(name, model))
    return found


def _pairs(sections: Iterable[Mapping[str, Model]]) -> Iterable[tuple[str, Model]]:
    return (pair for section in sections for pair in section.items())


def _trains(model: Model) -> tuple:
    return model.id, model.revision, model.dtype, model.sae.train
