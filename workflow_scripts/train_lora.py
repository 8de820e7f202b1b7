"""Train a LoRA adapter on the training rows of the target class."""

from steering_core.runtime.job import job

with job(snakemake):
    from types import SimpleNamespace

    from steering_core.data.examples import read_examples
    from steering_core.models.resources import fetched_model
    from steering_core.models.tokens import tokenize
    from steering_core.storage.arrays import save_arrays
    from steering_core.storage.files import read_json, write_json
    from steering_core.training.fine_tuning import fit_adapter

    params, resources = snakemake.params, read_json(snakemake.input.resources)
    lm = fetched_model(params.model, resources, params.settings["device"])
    prepend_bos = resources["saes"][0]["prepend_bos"]
    train = read_examples(snakemake.input.examples, ["train"])
    texts = train.loc[train["label"] == params.target_class, "text"].tolist()
    trained = fit_adapter(
        lm,
        tokenize(
            lm.tokenizer,
            texts,
            prepend_bos=prepend_bos,
            max_tokens=params.settings["max_tokens"],
        ),
        SimpleNamespace(**params.lora),
        seed=params.settings["seed"],
        prepend_bos=prepend_bos,
    )
    base = {"base_model_name_or_path": params.model["id"]}
    save_arrays(snakemake.output.adapter, trained.weights)
    write_json(snakemake.output.config, {**trained.config, **base})
    write_json(
        snakemake.output.training,
        {**params.lora, "texts": len(texts), "losses": trained.losses},
    )
