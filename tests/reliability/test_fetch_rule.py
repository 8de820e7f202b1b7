"""The fetch rule itself, as Snakemake runs it, before a hub that fails now and then."""

import shutil

import pytest
from gpt2_run import RESULTS, SMALL, fetched
from tiny_demo import new_directory, run

RESOURCES = f"{RESULTS}/resources.json"


def test_passing_faults_of_dataset_and_sae_are_survived(hub):
    found = fetched()
    assert found.faults == (1, 1, 1), found.log
    assert "Trying again in" in found.log and "Traceback" not in found.log


def test_too_few_prompts_are_reported_before_the_hub_is_asked(tmp_path):
    directory = new_directory(tmp_path / "run")
    done = run(directory, RESOURCES, sizes=[*SMALL, "n_prompts=9999"])
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "ConfigError: n_prompts: 9999 are asked for" in printed and "Trying again" not in printed
    assert not (directory / RESULTS / "logs/fetch.log").exists()


@pytest.fixture
def edited(hub, tmp_path):
    """A copy of what was fetched, with another concept."""
    directory = tmp_path / "run"
    shutil.copytree(fetched().directory, directory, symlinks=True)
    concept = directory / "resources/concepts/sentiment.yaml"
    concept.write_text(concept.read_text() + "# edited\n")
    return directory


def test_an_edit_of_the_concept_pins_nothing_anew(edited):
    planned = run(edited, RESOURCES, "--dry-run", sizes=[*SMALL, "n_prompts=5"])
    assert planned.returncode == 0, planned.stderr[-3000:]
    assert "Nothing to be done" in planned.stdout + planned.stderr
