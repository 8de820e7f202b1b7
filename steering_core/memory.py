"""What to change where a stage ran out of memory: settings that lower what it holds at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_SAE = "choose a narrower SAE (sae.id)"
_MORE = (
    "give the job more memory: on a cluster a retry asks for twice the mem_mb, elsewhere run "
    "fewer jobs at a time (--cores)"
)


@dataclass(frozen=True)
class Needs:
    """What decides how much memory a stage needs.

    Attributes:
        settings: those that lower it, the best first.
        batch: one that the stage lowers by itself when memory runs out, down to one; it only
            helps where the job was killed before it could.
        other: what else helps, in words.
        model: whether a language model is loaded, whose dtype matters.
    """

    settings: tuple[str, ...] = ()
    batch: str = ""
    other: str = ""
    model: bool = False


#: By rule. What is missing here needs little, whatever the settings.
NEEDS = {
    "cache_activations": Needs(("batch_tokens", "max_tokens"), model=True),
    "encode_features": Needs(other=_SAE),
    "sweep_layers": Needs(("rows_per_class",), other=_SAE),
    "fit_probes": Needs(("rows_per_class",)),
    "correlate_features": Needs(other=_SAE),
    "fit_directions": Needs(("rows_per_class",), other=_SAE),
    "solve": Needs(("rows_per_class", "n_prompts"), other=_SAE),
    "solve_directions": Needs(("rows_per_class", "n_prompts")),
    "solve_variants": Needs(("variant_rows", "prefilter_features"), other=_SAE),
    "generate": Needs(("new_tokens", "max_tokens"), batch="batch_prompts", model=True),
    "probe_effects": Needs(("rows_per_class",)),
    "norm_matched": Needs(("rows_per_class",), other=_SAE),
    "divergence": Needs(("batch_tokens",), model=True),
    "judge": Needs(("batch_tokens",), other="choose a smaller classifier", model=True),
    "features_page": Needs(other=_SAE),
    "corrsteer_select": Needs(("new_tokens",), batch="batch_rows", other=_SAE, model=True),
    "corrsteer_validate": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_answer": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_bridge": Needs(("new_tokens",), batch="batch_rows", model=True),
    "corrsteer_fine_tune": Needs(other="set fine_tuning.method to lora"),
    "corrsteer_merge": Needs(other=_SAE),
    "corrsteer_plan": Needs(other=_SAE),
}


def memory_advice(
    stage: str,
    settings: Mapping[str, Any] = MappingProxyType({}),
    dtype: str | None = None,
    *,
    killed: bool = False,
) -> str:
    """Return what to do about a stage that ran out of memory, as the end of a sentence.

    Args:
        stage: name of its rule.
        settings: that it was given; their halves are proposed, others are only named.
        dtype: of its model, if known.
        killed: whether it ended before it could lower anything by itself.
    """
    needs = NEEDS.get(stage, Needs())
    names = (needs.batch,) * (killed and bool(needs.batch)) + needs.settings
    known = {name: settings.get(name) for name in names}
    halves = [f"{k}={v // 2}" for k, v in known.items() if isinstance(v, int) and v > 1]
    others = [name for name, value in known.items() if value is None]
    said = [f"run again with --config {' '.join(halves)}"] if halves else []
    said += [f"lower {' or '.join(others)}"] if others else []
    said += [needs.other] if needs.other else []
    if needs.model and dtype in (None, "float32"):
        said.append("set the model's dtype to bfloat16")
    return ", or ".join([*said, _MORE])
