"""Both halves meet: a method of one answers the questions of the other."""

import pandas as pd
import yaml
from tiny_demo import copy_of, finished_demo, run

ANSWERS = "results/tiny_praise/corrsteer/seed-0/answers/{}.parquet"
ARMS = {
    "static": {"tau": 2.0, "lam": 1.0},
    "chosen": "selected",
}


def test_a_program_of_the_demo_answers_the_questions_of_praise(tmp_path):
    directory = copy_of(finished_demo(), tmp_path / "demo")
    path = directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    arms = config["corrsteer"]["models"]["tiny"]["settings"]["arms"]
    for name, strength in ARMS.items():
        source = {"experiment": "demo", "method": "qp_optimal", "strength": strength}
        arms[name] = {"intervention_from": source}
    path.write_text(yaml.safe_dump(config))
    targets = [ANSWERS.format(name) for name in ("unsteered", *ARMS)]
    done = run(directory, *targets)
    assert done.returncode == 0, done.stderr[-4000:]
    # Nothing that was there is made again.
    ran = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("corrsteer_")]
    assert set(ran) == {"corrsteer_experiment_method"}
    plain, static, chosen = (pd.read_parquet(directory / target) for target in targets)
    assert static["example_id"].tolist() == plain["example_id"].tolist()
    assert set(static["status"]) == {"ok"} and set(static["strength"]) == {"tau 2, lambda 1"}
    assert {tuple(layers) for layers in static["layers"]} == {(1,)}
    steered = static["norm"] > 0
    assert steered.any() and (static.loc[steered, "n_features"] > 0).all()
    assert (static.loc[~steered, "text"] == plain.loc[~steered, "text"]).all()
    pareto = pd.read_csv(directory / "results/demo/pareto.csv")
    assert (
        pareto.query("method == 'qp_optimal'")["selected"].any() == (chosen["status"] == "ok").all()
    )
