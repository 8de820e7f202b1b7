"""Declared programs on the prompts of ``inputs``, solved as an experiment does."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from export_world import DECODER, PROBE, SITE

from steering_core.methods.declared_programs import solve_declared
from steering_core.methods.directions import FitData
from steering_core.methods.guard_directions import guards_of
from steering_core.methods.solution_vectors import ProgramLogit, write_program
from steering_core.methods.solutions import write_solutions
from steering_core.statistics.fisher import FisherSums
from steering_core.storage.files import read_json, write_json

QP = {"program": "qp", "qp_lambda": [0.5], "epsilon": None}
SOCP = {"program": "socp", "qp_lambda": None, "epsilon": [30.0]}
DENSE = {"program": "dense", "qp_lambda": None, "epsilon": None}
IDS = ["a", "b", "c"]

SUMS = FisherSums.empty(32)
for _draws in np.random.default_rng(4).standard_normal((12, 6, 32)):
    SUMS.add(_draws * np.linspace(0.5, 2.0, 32), 6)
FISHER = SUMS.fisher()


def settings(program, mode, direction, metric, guards=()):
    """Return a declared program with two margins, as the configuration has it."""
    what = {"mode": mode, "concept_direction": direction, "metric": metric, "tau": [1.0, 20.0]}
    return {"feature_cost": "unit", **program, **what, "guards": list(guards)}


def fit_data(residuals):
    """Training rows in two classes around the residuals of the prompts."""
    rng = np.random.default_rng(3)
    labels = np.arange(80) % 2
    sides = np.where(labels == 1, 1.0, -1.0)[:, None] * PROBE.weight_vector
    rows = residuals[rng.integers(0, len(residuals), 80)] + sides + rng.standard_normal((80, 32))
    pairs = rng.standard_normal((20, 32))
    return FitData(rows, labels, pairs + PROBE.weight_vector, pairs, pairs, pairs, np.zeros(40))


def write_declared(finished, where, declared, tiny, inputs):
    """Copy an experiment and add declared programs; the second strength of each is selected."""
    shutil.copytree(finished, where)
    with torch.no_grad():
        states = tiny.model(**inputs, output_hidden_states=True).hidden_states
    residuals = states[SITE.layer + 1][:, -1].numpy()
    examples = pd.DataFrame(
        {"example_id": IDS, "split": ["validation", "test", "test"], "label": [0, 0, 1]}
    )
    data = fit_data(residuals)
    for name, how in declared.items():
        program, guards = SimpleNamespace(features=None, **how), None
        if how["guards"]:
            guards = guards_of(how["guards"], data.residuals)
        found = solve_declared(
            name, program, examples, residuals, PROBE, data, DECODER, FISHER, guards
        )
        logit = ProgramLogit(
            program.program, found.weight, found.bias, found.metric, found.cost, guards,
            program.mode,
        )  # fmt: skip
        file = where / "plans" / f"{name}.safetensors"
        write_program(file, SITE, found.vectors, found.index, logit)
        write_solutions(found.rows, file.with_suffix(".parquet"))
        select(where, name, found.rows)
    add_settings(where, "programs", declared)
    return where


def select(where, name, rows):
    """Add the strengths of a method to ``pareto.csv``; the last is selected."""
    points = rows.drop_duplicates("strength_index")["strength"].tolist()
    added = pd.DataFrame(
        {"method": name, "strength": strength, "selected": k == len(points) - 1}
        for k, strength in enumerate(points)
    )
    table = pd.read_csv(where / "pareto.csv")
    pd.concat([table, added]).to_csv(where / "pareto.csv", index=False)


def add_settings(where, name, values):
    """Add a setting to what the experiment's provenance says."""
    config = read_json(where / "provenance.json")
    config["config"]["settings"][name] = values
    write_json(where / "provenance.json", config)


def files_of(where, name):
    """Return the files that a declared program or a gated method steers with."""
    return {
        "solutions": str(where / "plans" / f"{name}.parquet"),
        "plan": str(where / "plans" / f"{name}.safetensors"),
        "decoder": str(where / "decoder.safetensors"),
    }
