"""An edit or a setting reruns the stages that use it, and what lies downstream, no others."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tiny_demo import ROOT, SIZES, TARGETS, command, copy_of, environment, finished_demo, run

from steering_core.runtime.digest import used_modules

EDITED = "steering_core/tables/caveats.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run, to plan in."""
    return copy_of(finished_demo(), tmp_path_factory.mktemp("finished") / "demo")


@pytest.fixture(scope="module")
def dry_run(finished, tmp_path_factory):
    """Reason of each rule that a copy of the workflow with an edited module would run."""
    copy = tmp_path_factory.mktemp("edited") / "repository"
    copy.mkdir()
    # Copied without their times: newer than every result, as in a fresh clone.
    for name in ("steering_core", "workflow_scripts", "rules", "resources", "envs", "profiles"):
        shutil.copytree(
            ROOT / name,
            copy / name,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
    shutil.copy(ROOT / "Snakefile", copy)
    with (copy / EDITED).open("a") as file:
        file.write("\nEDITED = 1\n")
    given = command(finished, *TARGETS, "--dry-run")
    done = subprocess.run(
        [given[0], *(argument.replace(str(ROOT), str(copy)) for argument in given[1:])],
        cwd=copy,
        env=environment(PYTHONPATH=str(copy)),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout + done.stderr
    jobs = re.findall(r"^ *rule (\w+):\n(?: +\w+: .*\n)*? +reason: (.*)$", printed, flags=re.M)
    return dict(jobs)


def test_the_stages_that_use_the_module_are_stale_and_only_those(dry_run):
    users = {
        script.stem
        for script in (ROOT / "workflow_scripts").glob("*.py")
        if ROOT / EDITED in used_modules(script)
    }
    assert "pareto" in users and "solve" not in users
    # The demo tries no layers, and nothing is exported here.
    assert users - {"layer_effect", "export_intervention"} <= set(dry_run)
    costly = {"fetch", "examples", "cache_activations", "encode_features", "fit_probes", "solve"}
    costly |= {"generate", "divergence", "judge", "corrsteer_select", "corrsteer_answer"}
    assert not (costly - users) & set(dry_run)


def test_what_lies_downstream_is_made_again(dry_run):
    assert {"provenance", "products"} <= set(dry_run)
    assert not {"fetch", "cache_activations", "solve", "corrsteer_select"} & set(dry_run)


def test_another_margin_steers_again_with_the_programs_that_read_it_alone(finished):
    sizes = [size for size in SIZES if not size.startswith("qp_tau=")]
    done = run(finished, *TARGETS, "--dry-run", sizes=[*sizes, "qp_tau=[2.0,3.0]"])
    assert done.returncode == 0, done.stderr[-3000:]
    logs = re.findall(r"^ *log: (\S+)$", done.stdout + done.stderr, flags=re.M)
    tables = {"probe_effects", "judge", "pareto", "norm_matched", "provenance", "products"}
    tables |= {
        "differences",
        "dose",
        "matched",
        "guards",
        "matched_figure",
        "price",
        "answer",
        "pareto_figure",
        "norm_matched_figure",
        "experiment_page",
        "frontier_figure",
        "generations_page",
        "features_page",
    }
    # The second of two jobs has the program; the other's methods are left alone.
    steered = {"solve-qp", "solve_prompts-qp", "generate-1", "divergence-1"}
    assert {Path(log).stem for log in logs} == steered | tables


def test_only_methods_that_steer_otherwise_are_generated_and_measured_again(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    results = directory / "results/demo"
    target = "results/demo/divergence/part-1.parquet"

    def made() -> dict[str, int]:
        files = [results / stage / "methods" for stage in ("generations", "divergence")]
        paths = [path for folder in files for path in sorted(folder.glob("*.parquet"))]
        return {str(path.relative_to(results)): path.stat().st_mtime_ns for path in paths}

    before, content = made(), (directory / target).read_bytes()
    assert len(before) == 8  # two methods and two declared programs, generated and measured
    sizes = [size for size in SIZES if not size.startswith("qp_tau=")]
    done = run(directory, target, sizes=[*sizes, "qp_tau=[2.0,3.0]"], forked=True)
    assert done.returncode == 0, done.stderr[-3000:]
    after = made()
    again = {name for name in before if after[name] != before[name]}
    assert again == {
        f"{stage}/methods/qp_optimal.parquet" for stage in ("generations", "divergence")
    }
    # The output that was removed is put together from its parts, without the model.
    done = run(directory, target, forked=True)  # the settings of before: one method again
    assert done.returncode == 0 and (directory / target).read_bytes() == content
    (directory / target).unlink()
    kept = made()
    done = run(directory, target, forked=True)
    assert done.returncode == 0 and (directory / target).read_bytes() == content
    assert made() == kept
    # A damaged part is made again.
    part = results / "divergence/methods/qp_optimal.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    (directory / target).unlink()
    done = run(directory, target, forked=True)
    assert done.returncode == 0 and (directory / target).read_bytes() == content


def planned(directory: Path, *changed: str) -> set[str]:
    """Rules that run if some settings are others, without those that only sum up."""
    names = {setting.split("=")[0] for setting in changed}
    sizes = [size for size in SIZES if size.split("=")[0] not in names]
    done = run(directory, *TARGETS, "--dry-run", sizes=[*sizes, *changed])
    assert done.returncode == 0, done.stderr[-3000:]
    return set(re.findall(r"^ *(?:local)?rule (\w+):$", done.stdout + done.stderr, flags=re.M))


#: Stages that other prompts and other texts of the same prompts leave alone.
OF_ROWS = {
    *("fetch", "examples", "cache_activations", "activation_manifest", "encode_features"),
    *("fit_probes", "fit_directions", "solve", "solve_directions", "solve_variants"),
    *("probe_effects", "norm_matched", "features_page", "frontier_figure"),
}
OF_PROMPTS = {"prompts", "cache_prompts", "solve_prompts", "solve_directions_prompts"}


def test_other_texts_and_other_prompts_leave_the_stages_of_rows_alone(finished):
    texts = planned(finished, "new_tokens=5")
    assert "generate" in texts and not (OF_ROWS | OF_PROMPTS) & texts
    prompts = planned(finished, "n_prompts=5")
    assert OF_PROMPTS <= prompts and not OF_ROWS & prompts


def test_a_prompt_of_the_concept_is_read_by_the_stages_of_prompts_alone(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    file = directory / config["tasks"]["grammar"]["concept"]
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = pd.read_parquet(directory / "results/demo/dataset.parquet")["text"]

    def stages(first: str) -> set[str]:
        prompts = [first, *written["prompts"][1:]]
        file.write_text(yaml.safe_dump({**written, "prompts": prompts}), encoding="utf-8")
        return planned(directory)

    found = stages("something else that they said")
    assert OF_PROMPTS <= found and not OF_ROWS - {"fetch"} & found
    # A row that is a prompt now is left out of the examples, and so all that is fitted on them.
    assert {"examples", "fit_probes", *OF_PROMPTS} <= stages(rows[0])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"tasks": {"grammar": {"concept": "/nowhere.yaml"}}},
            "ConfigError: tasks.grammar.concept: there is no file /nowhere.yaml",
        ),
        (
            {"corrsteer": {"tasks": {"praise": {"dataset": "prase.parquet"}}}},
            "ConfigError: corrsteer.tasks.praise.dataset: there is no file prase.parquet (did you "
            "mean 'praise.parquet'?)",
        ),
        ({"n_prompts": 900}, "ConfigError: n_prompts: 900 are asked for, sentiment has 50"),
    ],
    ids=["concept", "dataset", "n_prompts"],
)
def test_what_cannot_be_made_is_refused_although_its_results_are_there(
    finished, tmp_path, changed, said
):
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(changed))
    sizes = [size for size in SIZES if size.split("=")[0] not in changed]
    done = run(finished, *TARGETS, "--dry-run", "--configfile", str(file), sizes=sizes)
    assert done.returncode == 1 and said in done.stdout + done.stderr
