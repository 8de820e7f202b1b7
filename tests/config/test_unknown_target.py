"""Asked for a file that no rule makes, the error names the nearest one."""

import pytest
from workflow_rules import CONFIG

from steering_core.config.unknown_target import files_made, refuse_target
from steering_core.errors import ConfigError

MADE = files_made(
    [
        "results/{experiment}/pareto.csv",
        "results/{experiment}/paths/{family}.safetensors",
        "results/{experiment}/paths",
        "results/{run}/corrsteer.csv",
        "results/tables/corrsteer_{table}.csv",
        "results/demo/corpus.parquet",
    ],
    {"experiment": ["demo", "gpt2_sst2"], "run": ["gemma2b_mmlu"], "table": ["ser", "scale"]},
)


def test_files_directly_in_a_folder_are_known_by_experiment():
    assert MADE == {
        "demo": [f"results/demo/{file}" for file in ("pareto.csv", "paths", "corpus.parquet")],
        "gpt2_sst2": ["results/gpt2_sst2/pareto.csv", "results/gpt2_sst2/paths"],
        "gemma2b_mmlu": ["results/gemma2b_mmlu/corrsteer.csv"],
        "tables": ["results/tables/corrsteer_ser.csv", "results/tables/corrsteer_scale.csv"],
    }


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("demo/pareto.cvs", "did you mean pareto.csv"),
        ("tables/corrsteer_sre.csv", "did you mean corrsteer_ser.csv"),
        ("demo/a.b", "there are corpus.parquet, pareto.csv"),
        ("gpt2_sst/pareto.csv", "did you mean 'gpt2_sst2'"),
        ("gemma2b_mml/corrsteer.csv", "did you mean 'gemma2b_mmlu'"),
    ],
)
def test_the_nearest_is_named(target, said):
    with pytest.raises(ConfigError, match=said):
        refuse_target(f"results/{target}", CONFIG, MADE)
