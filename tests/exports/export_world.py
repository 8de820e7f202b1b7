"""A finished experiment of a tiny model, written by hand: all that an export reads."""

import numpy as np
import pandas as pd

from steering_core.methods.base import Direction, write_directions
from steering_core.methods.solution_vectors import write_plan
from steering_core.methods.solutions import PARTS, write_solutions
from steering_core.models.site import Site
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.storage.arrays import save_decoder
from steering_core.storage.files import write_json

D_MODEL, UNIT, ALPHA, TAU = 32, 7.0, 0.5, 4.0
SITE = Site(2, "post", False, True)
RNG = np.random.default_rng(0)
DECODER = RNG.standard_normal((40, D_MODEL))
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)
WEIGHT = 0.4 * RNG.standard_normal(D_MODEL)
BIAS = -0.3
PROBE = LinearProbe(WEIGHT, BIAS, (0, 1), 1.0, 0.9, (0.9,), 0.01, False, 50)
DIRECTION = RNG.standard_normal(D_MODEL)
DIRECTION /= np.linalg.norm(DIRECTION)
COLUMNS = ["objective", "dual_objective", "relative_gap", "dual_violation", "l0", "l1"]


def row(method, index, strength, status, **more):
    nothing = dict.fromkeys([*COLUMNS, *PARTS, "shortfall", "position"], np.nan)
    return {
        "example_id": "e0", "method": method, "strength_index": index, "strength_name": "alpha",
        "strength": strength, "status": status, "residual_norm": 1.0, "split": "test",
        **nothing, **more,
    }  # fmt: skip


def write_experiment(where, model, positions="last", site=SITE):
    """Write the results of an experiment on the model in the directory ``model``."""
    where.mkdir(parents=True)
    path = SteeringPath.fit(DECODER, WEIGHT)
    for family in ("qp", "socp"):
        (where / "paths").mkdir(exist_ok=True)
        path.extend(3.0).save(where / "paths" / f"{family}.safetensors")
    solution = path.qp([5.0], 1.0)
    of_qp = {"tau": TAU, "lam": 1.0}
    shared = {"shortfall": 5.0, "position": float(solution.position[0])}
    rows = {
        "directions": [
            *(row("caa_mean_diff", k, s, "fixed") for k, s in enumerate((0.1, ALPHA))),
            row("single_feature", 0, ALPHA, "fixed"),
            row("random_direction", 0, ALPHA, "fixed"),
            row("no_steering", 0, 0.0, "fixed"),
        ],
        "qp": [
            row("qp_optimal", 0, TAU, "optimal", **of_qp),
            row("qp_adaptive", 0, TAU, "optimal", **of_qp),
            row("qp_shared", 0, TAU, "optimal", **of_qp, **shared),
        ],
        "socp": [
            row("socp_adaptive", 0, 60.0, "optimal", tau=TAU, epsilon=60.0),
            row("convex_optimal", 0, 1e-3, "infeasible", tau=TAU, epsilon=1e-3),
        ],
    }
    for family, some in rows.items():
        write_solutions(pd.DataFrame(some), where / "solutions" / f"{family}.parquet")
    plan = pd.DataFrame([row("a_plan", 0, 2.0, "fixed")])
    write_solutions(plan, where / "plans" / "a_plan.parquet")
    sites = {Site(layer, "post", False, True): DIRECTION * layer for layer in (1, 2)}
    write_plan(where / "plans" / "a_plan.safetensors", sites)
    directions = {
        "caa_mean_diff": Direction(DIRECTION),
        "random_direction": Direction(-DIRECTION),
        "single_feature": Direction(DECODER[3], np.array([3]), np.array([1.0])),
    }
    write_directions(where / "directions.safetensors", directions, UNIT, 1)
    save_decoder(where / "decoder.safetensors", DECODER, "an sae")
    PROBE.save(where / "probe.safetensors")
    sae = {**site.to_dict(), "name": "an sae", "hook_name": site.hook_name, "d_sae": 40}
    sae["neuronpedia_id"] = "tiny/2-res"
    write_json(where / "layer.json", sae)
    shape = {"architecture": "LlamaForCausalLM", "blocks_path": "model.layers", "context": 64}
    resources = {
        "model": {"id": str(model), "revision": "sha256:0", "dtype": "float32"},
        "shape": {**shape, "n_layers": 4, "d_model": D_MODEL},
        "saes": [sae],
        "sae_revision": "r",
    }
    write_json(where / "resources.json", resources)
    source = {"release": "a-release", "id": "layer_{layer}", "path": None}
    config = {
        "settings": {"positions": positions},
        "task": {"target_class": 1},
        "model": {"sae": source},
    }
    write_json(where / "provenance.json", {"config": config})
    table = pd.DataFrame(
        {"method": r["method"], "strength": r["strength"], "selected": r["strength"] != 0.1}
        for some in (*rows.values(), plan.to_dict("records"))
        for r in some
        if r["method"] != "random_direction"
    )
    table.to_csv(where / "pareto.csv", index=False)
    return where
