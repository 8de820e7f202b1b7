"""Put a method behind a gate, for every validation and test row, or for every prompt."""

from steering_core.runtime.job import job

with job(snakemake):
    import torch

    from steering_core.activations.reader import ActivationCache, read_inputs
    from steering_core.config.methods import is_adaptive, program_of
    from steering_core.config.model import Model
    from steering_core.data.examples import read_examples
    from steering_core.methods.gates import Gate, feature_gate, gated_rows
    from steering_core.methods.solution_vectors import (
        ProgramLogit,
        read_plan,
        read_solution_vectors,
        write_program,
    )
    from steering_core.methods.solutions import write_solutions
    from steering_core.models.sae_source import pinned_sae
    from steering_core.models.site import site_at
    from steering_core.models.sparse_autoencoder import load_encoder
    from steering_core.probes.linear_probe import LinearProbe
    from steering_core.storage.files import read_json

    files, gated = snakemake.input, snakemake.params.gated
    method, condition = gated["method"], gated["gate"]
    layer, resources = read_json(files.layer), read_json(files.resources)
    site = site_at(layer)
    cache = ActivationCache(files.manifest, resources, files.examples)
    probe = LinearProbe.load(files.gate_probe).oriented(snakemake.params.target_class)

    logit = None
    if files.get("plan"):
        plan = read_plan(files.solutions, files.plan, method)
        rows, logit = plan.rows, plan.logit
        vectors = plan.at_site(site).vectors(rows)
    else:
        found = read_solution_vectors(
            method, files.solutions, files.get("directions"), files.get("path")
        )
        rows, vectors = found.rows, found.vectors(found.rows)
        if is_adaptive(method):
            logit = ProgramLogit(program_of(method), probe.weight_vector, probe.bias, None)

    if condition["probe_below"] is not None:
        gate = Gate.probe_below(probe.weight_vector, probe.bias, condition["probe_below"])
    else:
        feature = condition["feature"]
        encoder = load_encoder(pinned_sae(Model(**snakemake.params.model), resources), site.layer)
        train = read_examples(files.examples, ["train"])["example_id"]
        gate = feature_gate(
            encoder.row(feature),
            lambda given: encoder.encode(torch.tensor(given))[:, feature].double().numpy(),
            condition["above"],
            cache.matrix(site.hook_name, train),
            f"feature {feature}",
        )

    inputs = read_inputs(dict(files.items()), resources, site.hook_name)
    ids = inputs.examples["example_id"]
    opened = dict(zip(ids, gate.open(inputs.residuals), strict=True))
    rows, vectors, index = gated_rows(snakemake.wildcards.method, rows, vectors, opened)
    write_program(snakemake.output.plan, site, vectors, index, logit, gate)
    write_solutions(rows, snakemake.output.solutions)
