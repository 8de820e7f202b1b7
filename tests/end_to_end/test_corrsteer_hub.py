"""Real rows of a select task through S, A and P; test_corrsteer_xstest.py has free text."""

from steering_core.config.corrsteer_schema import Arm, CorrSteerSettings, CorrSteerTask
from steering_core.config.model import SAESource
from steering_core.corrsteer.answers import Decoding, Session, undefined
from steering_core.corrsteer.examples import build_examples
from steering_core.corrsteer.kept_answers import validate_layers
from steering_core.corrsteer.plan import choose, make_plan
from steering_core.corrsteer.read_items import fetch_items, source_of
from steering_core.corrsteer.report import result_table
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.corrsteer.selection import make_readers, select
from steering_core.corrsteer.tasks import TASKS
from steering_core.models.sparse_autoencoder import load_sae

LAYERS = (4, 7)
ARMS = {
    "corrsteer_s": Arm(strategy="single"),
    "corrsteer_a": Arm(strategy="all", scale=20.0),
    "corrsteer_p": Arm(strategy="pruned", scale=20.0),
}


def test_a_select_task_runs_through_every_strategy(gpt2):
    name, new_tokens = "bbq_disambig", 1
    task = TASKS[name]
    entry = CorrSteerTask(task=name, subsets=["Age"])
    settings = CorrSteerSettings(
        train_rows=28, validation_rows=8, test_rows=12, few_shot=1, long_prompts="drop"
    )
    items, _ = fetch_items(entry, published_prompt=False)
    rows, _ = build_examples(
        items,
        task,
        source_of(entry, task),
        settings,
        gpt2.tokenizer,
        seed=1,
        prepend_bos=True,
        max_tokens=gpt2.shape.context - new_tokens,
    )
    split = {key: part.reset_index(drop=True) for key, part in rows.groupby("split")}
    source = SAESource(release="gpt2-small-res-jb", id="blocks.{layer}.hook_resid_pre")
    saes = {layer: load_sae(source, layer) for layer in LAYERS}
    sites = {layer: sae.site for layer, sae in saes.items()}
    assert all(site.centred and site.stream == "pre" for site in sites.values())
    how = Decoding(new_tokens, batch_rows=8, restrict_options=True)
    classifier = task.success.load(device="cpu")
    session = Session(gpt2, task, how, classifier, False, sites)
    found = select(
        session,
        split["train"],
        make_readers(saes, sites, [PooledStatistic()], gpt2.shape.d_model),
        [PooledStatistic()],
    )
    assert 0 < found.answers["success"].sum() < len(split["train"])

    answers = {"unsteered": session.answer(split["test"])}
    for arm_name, arm in ARMS.items():
        plan = make_plan(
            arm,
            found.accumulators,
            sites,
            lambda layer, features: saes[layer].decoder[features],
            task_pooling=task.pooling,
            keep=20,
            seed=1,
        )
        assert sorted(plan.vectors) == list(LAYERS) and len(plan.features) <= 40
        pruned = arm.strategy == "pruned"
        validation = validate_layers(session, split["validation"], plan) if pruned else None
        choice = choose(arm.strategy, plan, validation)
        if not choice.layers:
            answers[arm_name] = undefined(split["test"], choice.reason)
            continue
        answers[arm_name] = session.answer(split["test"], plan.intervention(choice.layers))
    table = result_table(name, {1: answers}, n_resamples=100).query("seed == 'all'")
    table = table.set_index("method")
    assert set(table.index) == {"unsteered", *ARMS}
    defined = table[table["status"] == "ok"]
    assert defined["accuracy"].between(0, 1).all() and (defined["n"] == len(split["test"])).all()
    assert len(table.loc["corrsteer_a", "layers"].split()) == 2
    assert (table.loc[table["status"] != "ok", "reason"].str.contains("unsteered")).all()
