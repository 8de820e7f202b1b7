"""Every benchmark runs to its end, at a size that takes seconds. Its times are not looked at."""

import importlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import render, table

NAMES = sorted(file.stem for file in (render.ROOT / "benchmarks").glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_to_its_end(name, tmp_path, monkeypatch):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--tiny"])
    # Memory is not measured in a process of its own, whose imports would take longer than its work.
    # In this one, which has used more before, the peak may not rise.
    monkeypatch.setattr(
        benchmark, "alone", lambda run, *given: max(run(*given), 1.0), raising=False
    )
    assert benchmark.main() == 0
    rows = pd.read_csv(tmp_path / f"{name.removeprefix('bench_')}.csv")
    assert rows["measured"].is_unique and np.isfinite(rows["ours"]).all()
    assert rows["met"].isna().all(), "a run of this size says nothing about a requirement"


@pytest.fixture
def all_benchmarks(monkeypatch):
    """Return a function that runs them with stand-ins, and gives the status and what was run."""
    runner = importlib.import_module("benchmarks.__main__")
    ran = []

    def run(*options, broken=(), endless=()):
        def stand_in(command, timeout, **_):
            name = command[2].removeprefix("benchmarks.")
            ran.append((name, command[3:], timeout))
            if name in endless:
                raise subprocess.TimeoutExpired(command, timeout)
            return subprocess.CompletedProcess(command, int(name in broken))

        monkeypatch.setattr(runner.subprocess, "run", stand_in)
        monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
        return runner.main(), ran

    return run


def test_the_others_run_if_one_fails_or_does_not_end(all_benchmarks, capsys):
    status, ran = all_benchmarks(broken=[NAMES[0]], endless=[NAMES[2]])
    assert status == 1 and [name for name, *_ in ran] == NAMES
    assert f"FAILED {NAMES[0]}, {NAMES[2]}" in capsys.readouterr().err


def test_all_of_them_take_the_size_and_a_limit(all_benchmarks):
    status, ran = all_benchmarks("--tiny", "--limit", "5")
    assert status == 0
    assert all(options == ["--tiny"] and limit == 5 for _, options, limit in ran)
