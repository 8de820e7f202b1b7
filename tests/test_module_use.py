"""The workflow can be a module of another one, and does no harm without a target."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTER = """
configfile: "{root}/config.yaml"


module steering:
    snakefile:
        "{root}/Snakefile"
    config:
        config


use rule * from steering as steering_*


rule mine:
    default_target: True
    input:
        "results/demo/index.html",
    output:
        "results/mine.txt",
    shell:
        "wc -l {{input}} > {{output}}"
"""


def planned(snakefile: Path, directory: Path) -> set[str]:
    """The rules that a run without a target plans."""
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--dry-run",
            "--quiet", "reason", "--directory", str(directory), "--cores", "2",
        ],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    table = said.split("Job stats:")[1].split("total")[0]
    return set(re.findall(r"^(\w+) +\d+$", table, flags=re.M))


def test_another_workflow_uses_the_rules_under_names_of_its_own(tmp_path: Path):
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(OUTER.format(root=ROOT.as_posix()), encoding="utf-8")
    jobs = planned(snakefile, tmp_path)
    assert {"mine", "steering_demo_corpus", "steering_solve", "steering_experiment_page"} <= jobs
    assert all(job.startswith("steering_") for job in jobs - {"mine"})


def test_without_a_target_the_demo_is_made_and_nothing_else(tmp_path: Path):
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text(encoding="utf-8"))
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--summary",
            "--directory", str(tmp_path),
        ],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folders = set(re.findall(r"^results/([^/]+)/", done.stdout, flags=re.M))
    assert folders == {"demo", "demo_praise", "models"}
    assert set(re.findall(r"^results/models/([^/]+)/", done.stdout, flags=re.M)) == {"demo"}
