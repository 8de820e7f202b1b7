"""The arms of a job share one model, and what is complete under each is kept while it is valid."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from corrsteer_world import SITE, session_of, word_rows
from stage_scripts import run_stage

from steering_core.corrsteer import kept_answers, sparse_methods
from steering_core.corrsteer.answers import Decoding, write_answers
from steering_core.corrsteer.examples import read_examples, write_examples
from steering_core.corrsteer.kept_answers import (
    KeptAnswers,
    answer_choice,
    answers_of_arms,
    validate_layers,
)
from steering_core.corrsteer.plan import FEATURE_COLUMNS, Plan, choose
from steering_core.corrsteer.report import read_answers
from steering_core.corrsteer.sparse_methods import SparseAnswers
from steering_core.errors import DataError, ModelError
from steering_core.models import sae_source, sparse_autoencoder
from steering_core.storage import parquet
from steering_core.storage.files import write_json
from steering_core.storage.parquet import write_parquet

HOW = Decoding(new_tokens=3, batch_rows=8, prepend_bos=True)
SITES = {layer: replace(SITE, layer=layer) for layer in (1, 3)}
RESOURCES = {"model": {"revision": "r"}, "classifier": None, "saes": [{"layer": 1}]}
STRATEGIES = {"corrsteer_s": "single", "corrsteer_p": "pruned", "corrsteer_a": "all"}
NAMES = ["unsteered", *STRATEGIES]
#: What writes the answers of an arm, and the validation of its layers.
WRITERS = [(parquet, "write_parquet"), (kept_answers, "write_text")]
SIZES = {"train": 6, "validation": 10, "test": 9}


def write_plan(path: Path, seed: int = 0) -> str:
    """A plan whose vectors at both layers change answers."""
    rng = np.random.default_rng(seed)
    vectors = {layer: 8 * rng.standard_normal(32).astype("f4") for layer in SITES}
    rows = [
        dict.fromkeys(FEATURE_COLUMNS, 0) | {"layer": layer, "steered": True, "score": 1.0 / layer}
        for layer in SITES
    ]
    features = pd.DataFrame(rows).astype(FEATURE_COLUMNS)
    path.parent.mkdir(exist_ok=True, parents=True)
    Plan(features, vectors, SITES, {}).save(path)
    return str(path)


def write_rows(path: Path, **seeds: int) -> str:
    """Examples of all splits; the seed of a split draws its prompts."""
    parts = [word_rows(n, seeds.get(split, 0), split) for split, n in SIZES.items()]
    write_examples(path, pd.concat(parts, ignore_index=True).assign(n_tokens=3))
    return str(path)


@pytest.fixture
def arms(tmp_path):
    planned = {
        name: {
            "plan": write_plan(tmp_path / f"plans/{name}.safetensors"),
            "strategy": strategy,
            "validated": strategy == "pruned",
        }
        for name, strategy in STRATEGIES.items()
    }
    write_rows(tmp_path / "examples.parquet")
    return {"unsteered": None, **planned}


@pytest.fixture
def made(monkeypatch, tiny):
    """How often a model was loaded, and what was validated and answered, in order."""
    found = SimpleNamespace(loads=0, files=[], lm=tiny)

    def opened(*given):
        found.loads += 1
        return session_of(found.lm, HOW, sites=SITES)

    def noted(function):
        def write(path, *content):
            found.files.append(Path(path).name)
            function(path, *content)

        return write

    monkeypatch.setattr(kept_answers, "open_session", opened)
    for module, name in WRITERS:
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return found


def job(folder, arms, code="c", validated_by="v", resources=RESOURCES, examples=None, **settings):
    """The answers of a job, as a new process makes them."""
    params = SimpleNamespace(model={}, task={"task": "words"}, settings=settings, code=code)
    kept = KeptAnswers(params, resources, examples or folder / "examples.parquet", folder)
    return answers_of_arms(kept, arms, validated_by)


ALL = ["unsteered.parquet", "corrsteer_s.parquet", "corrsteer_p.csv", "corrsteer_p.parquet"]
ALL.append("corrsteer_a.parquet")


def test_one_process_answers_as_a_process_for_each_arm_did(tmp_path, arms, made, tiny):
    whole = job(tmp_path, arms)
    assert made.loads == 1 and made.files == ALL
    assert whole["method"].to_pylist() == np.repeat(NAMES, SIZES["test"]).tolist()
    write_parquet(tmp_path / "answers-0.parquet", whole)
    session = session_of(tiny, HOW, sites=SITES)
    validation, test = (
        read_examples(tmp_path / "examples.parquet", split) for split in ("validation", "test")
    )
    texts = set()
    for name, arm in arms.items():
        plan, choice = None, None
        if arm is not None:
            plan = Plan.load(arm["plan"])
            table = validate_layers(session, validation, plan) if arm["validated"] else None
            choice = choose(arm["strategy"], plan, table)
            if table is not None:
                kept = tmp_path / f"validation/{name}.csv"
                assert kept.read_text() == table.to_csv(index=False)
        alone = tmp_path / f"{name}.parquet"
        write_answers(alone, answer_choice(session, test, plan, choice))
        assert (tmp_path / f"answers/{name}.parquet").read_bytes() == alone.read_bytes()
        expected = read_answers(alone, name)
        pd.testing.assert_frame_equal(
            read_answers(tmp_path / "answers-0.parquet", name), expected, check_exact=True
        )
        texts.add(tuple(expected["text"]))
    assert len(texts) >= 3  # the arms do differ
    with pytest.raises(DataError, match="no answers under corrsteer_x"):
        read_answers(tmp_path / "answers-0.parquet", "corrsteer_x")


def test_no_model_is_loaded_if_every_table_is_there(tmp_path, arms, made):
    whole = job(tmp_path, arms)
    made.files.clear()
    assert job(tmp_path, arms).equals(whole) and made.files == [] and made.loads == 1
    # Other arms in a job than before, as with other shards.
    some = {name: arms[name] for name in ("corrsteer_a", "unsteered")}
    assert job(tmp_path, some)["method"].to_pylist()[0] == "corrsteer_a"
    assert made.files == [] and made.loads == 1


@pytest.mark.parametrize("killed", ["corrsteer_p.csv", "corrsteer_p.parquet"])
def test_a_killed_job_loses_one_arm(tmp_path, arms, made, monkeypatch, killed):
    with monkeypatch.context() as patched:
        for module, name in WRITERS:
            write = getattr(module, name)

            def until(path, *content, write=write):
                if Path(path).name == killed:
                    raise KeyboardInterrupt
                write(path, *content)

            patched.setattr(module, name, until)
        with pytest.raises(KeyboardInterrupt):
            job(tmp_path, arms)
    done, made.files = list(made.files), []
    assert done == ALL[: ALL.index(killed)]
    whole = job(tmp_path, arms)
    assert made.files == ALL[ALL.index(killed) :]
    (tmp_path / "new").mkdir()
    examples = tmp_path / "examples.parquet"
    assert whole.equals(job(tmp_path / "new", arms, examples=examples))


def test_a_change_of_one_arm_answers_under_that_one_again(tmp_path, arms, made):
    job(tmp_path, arms)

    def again(changed, **given):
        made.files.clear()
        job(tmp_path, changed, **given)
        return made.files

    write_plan(tmp_path / "plans/corrsteer_a.safetensors", seed=1)
    assert again(arms) == ["corrsteer_a.parquet"]
    other = {**arms, "corrsteer_a": {**arms["corrsteer_a"], "strategy": "single"}}
    assert again(other) == ["corrsteer_a.parquet"]
    more = {**other, "corrsteer_s_too": arms["corrsteer_s"]}
    assert again(more) == ["corrsteer_s_too.parquet"]
    write_plan(tmp_path / "plans/corrsteer_p.safetensors", seed=1)
    assert again(other) == ["corrsteer_p.csv", "corrsteer_p.parquet"]
    assert again(dict(list(other.items())[:2])) == []


def test_what_all_arms_depend_on_answers_under_all_again(tmp_path, arms, made):
    def again(**given):
        made.files.clear()
        job(tmp_path, arms, **given)
        return made.files

    answers = [name for name in ALL if name.endswith("parquet")]
    assert again() == ALL
    assert again(code="d") == answers  # what validates has a digest of its own
    assert again(code="d", new_tokens=4) == ALL
    assert again(resources={**RESOURCES, "model": {"revision": "s"}}) == ALL
    assert again() == ALL
    write_rows(tmp_path / "examples.parquet", train=1)
    assert again() == []
    write_rows(tmp_path / "examples.parquet", test=1)
    assert again() == answers
    write_rows(tmp_path / "examples.parquet", test=1, validation=1)
    assert again() == ["corrsteer_p.csv", "corrsteer_p.parquet"]


def test_a_plan_that_is_evaluated_elsewhere_is_validated_once(tmp_path, arms, made):
    write_json(tmp_path / "resources.json", RESOURCES)
    arm = {"corrsteer_p": arms["corrsteer_p"]}

    def validate():
        made.files.clear()
        run_stage(
            "corrsteer_validate.py",
            tmp_path,
            input={
                "resources": tmp_path / "resources.json",
                "examples": tmp_path / "examples.parquet",
                "plan": arm["corrsteer_p"]["plan"],
            },
            output={"validation": tmp_path / "plans/corrsteer_p.validation.csv"},
            params={"model": {}, "task": {"task": "words"}, "settings": {}, "code": "v"},
            arm="corrsteer_p",
        )
        return made.files, (tmp_path / "plans/corrsteer_p.validation.csv").read_text()

    files, table = validate()
    assert files == ["corrsteer_p.csv"] and table.startswith("layer,accuracy,n\n-1,")
    job(tmp_path, arm)
    assert made.files == ["corrsteer_p.csv", "corrsteer_p.parquet"] and made.loads == 2
    assert validate() == ([], table) and made.loads == 2  # without a model


def test_the_unsteered_model_must_not_overflow_in_a_job_of_all_arms(tmp_path, arms, made, tiny):
    damaged = replace(tiny, model=copy.deepcopy(tiny.model))
    damaged.model.get_parameter("model.layers.1.mlp.down_proj.weight").data.fill_(float("nan"))
    made.lm = damaged
    with pytest.raises(ModelError, match="without any steering"):
        job(tmp_path, arms)
    assert not (tmp_path / "answers/unsteered.parquet").exists() and made.files == []


def test_the_sparse_methods_share_a_process_and_each_is_kept(tmp_path, arms, made, monkeypatch):
    answered = []

    def answer(session, method, settings, plan, rows_of, train, validation, test, *, seed, fisher):
        if method == "killed":
            raise KeyboardInterrupt
        answered.append(method)
        table = pd.DataFrame({"strength": [method]})
        return SparseAnswers(session.answer(test).assign(strength=method), table)

    monkeypatch.setattr(sparse_methods, "answer_sparse_method", answer)
    monkeypatch.setattr(sae_source, "pinned_sae", lambda *given: None)
    monkeypatch.setattr(sparse_autoencoder, "decoder_rows", lambda sae: None)
    write_json(tmp_path / "resources.json", {**RESOURCES, "sae_revision": "s"})
    train = read_examples(tmp_path / "examples.parquet", "train")
    train[["example_id"]].assign(success=True).to_parquet(tmp_path / "training.parquet")

    def methods(*names, programs=None, **settings):
        answered.clear()
        run_stage(
            "corrsteer_sparse_methods.py",
            tmp_path,
            input={
                "resources": tmp_path / "resources.json",
                "examples": tmp_path / "examples.parquet",
                "training": tmp_path / "training.parquet",
                "plan": arms["corrsteer_a"]["plan"],
            },
            output={"answers": tmp_path / "sparse_methods-0.parquet"},
            params={
                "model": {"id": "m", "sae": {"path": "unused/layer_{layer}"}},
                "task": {"task": "words"},
                "settings": {},
                "methods": names,
                "sparse_methods": {"features": 5, "units": "absolute", **settings},
                "programs": programs or {},
                "code": "c",
            },
            seed="0",
            shard="0",
        )
        return answered

    with pytest.raises(KeyboardInterrupt):
        methods("qp_optimal", "killed", tau=[1.0])
    assert methods("qp_optimal", "caa_repe", tau=[1.0]) == ["caa_repe"] and made.loads == 2
    for method in ("qp_optimal", "caa_repe"):
        own = read_answers(tmp_path / "sparse_methods-0.parquet", method)
        assert len(own) == SIZES["test"] and set(own["strength"]) == {method}
        assert (tmp_path / f"validation/{method}.csv").read_text() == f"strength\n{method}\n"
    assert methods("caa_repe", tau=[1.0]) == [] and made.loads == 2  # without a model
    assert methods("caa_repe", tau=[2.0]) == ["caa_repe"]
    # A declared program depends on its own declaration, and not on what others read.
    one, other = ({"declared": {"tau": [tau]}, "fisher": None} for tau in (1.0, 2.0))
    assert methods("a", "b", programs={"a": one, "b": one}) == ["a", "b"]
    assert methods("a", "b", programs={"a": one, "b": other}, tau=[3.0]) == ["b"]
    assert methods("b", programs={"b": {**other, "fisher": {"texts": 9}}}) == ["b"]
    assert methods("b", programs={"b": {**other, "fisher": {"texts": 9}}}, features=6) == ["b"]
