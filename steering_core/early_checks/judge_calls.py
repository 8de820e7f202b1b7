"""How often a judge behind a server will be asked at most, known before any text is made.

The rules say it when they plan a job that asks such a judge, so a dry run shows it too. The job
itself counts again, with the texts at hand, before its first call.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steering_core.config.methods import BASELINE, strength_grid
from steering_core.config.task import Task
from steering_core.data.concept import read_concept

if TYPE_CHECKING:
    from steering_core.config.schema import Experiment, Settings

#: The stages that ask a judge of completions. ``rate`` asks for all three scales.
Stage = Literal["judge", "rate", "try_layer"]

#: Characters of a prompt in a concept file that is not made yet.
_OF_A_PROMPT = 100


def count_strengths(settings: "Settings") -> int:
    """Return at how many strengths texts are made, over all methods of an experiment."""

    def of(method: str) -> int:
        if method == BASELINE:
            return 1
        if method in settings.plans:
            return len(settings.plans[method].scales)
        if method in settings.gated:
            return of(settings.gated[method].method)
        if method in settings.programs:
            one = settings.programs[method]
            return len(one.tau) * len(one.features or one.qp_lambda or one.epsilon or [0.0])
        return len(strength_grid(method, settings))

    return sum(map(of, [*settings.methods, *settings.plans, *settings.programs, *settings.gated]))


def judge_calls(experiment: "Experiment", stage: Stage) -> str | None:
    """Return in words what a stage asks of a judge behind a server, at most.

    Texts without a word and texts that are the same are not asked for, nor what is kept from
    before, so there may be fewer calls.

    Args:
        experiment: one that delivers ``pareto.csv``, with its merged settings.
        stage: that asks.

    Returns:
        A sentence; None if no judge of the stage is behind a server.
    """
    task, settings = experiment.task, experiment.settings
    judges = [task.classifier] if stage == "try_layer" else task.judges
    endpoint = next((one.api for one in judges if one is not None and one.api is not None), None)
    if endpoint is None:
        return None
    # Needs the client of the server, which experiments without such a judge do not import.
    from steering_core.metrics.api_judge import (
        CHARACTERS_PER_TOKEN,
        SCALES,
        call_size,
        rubric,
        size_in_words,
    )
    from steering_core.metrics.judging import ANSWERS

    texts = settings.draws * (settings.n_prompts + settings.n_validation_prompts)
    texts *= count_strengths(settings)
    if stage == "try_layer":
        texts = settings.draws * settings.n_validation_prompts * (1 + len(settings.strengths))
    scales = SCALES if stage == "rate" else ("concept",)
    instruction = "x" * _length_of_prompts(task)
    words = [rubric(s, "", concept=endpoint.concept, instruction=instruction) for s in scales]
    text = CHARACTERS_PER_TOKEN * settings.new_tokens
    told = call_size(endpoint, texts * len(scales), texts * sum(len(q) + text for q in words))
    return (
        f"{experiment.name}, {stage}: the judge {endpoint.model} at {endpoint.url} is asked for at "
        f"most {texts * len(scales)} ratings of {texts} texts: {size_in_words(told)}. Answers in "
        f"{ANSWERS} are not asked for again."
    )


def _length_of_prompts(task: Task) -> int:
    """Return the mean number of characters of the prompts of a concept file."""
    if not Path(task.concept).is_file():
        return _OF_A_PROMPT
    concept = read_concept(task.concept)
    prompts = [*concept.prompts, *concept.validation_prompts]
    return round(sum(map(len, prompts)) / max(len(prompts), 1))
