# Export interventions for other programs: the selected strength of a method, or with a number
# behind its name any strength, as in exports/qp_optimal-3.
rule export_intervention:
    input:
        unpack(exported_files),
        resources=rules.fetch.output.resources,
        layer=rules.pick_layer.output.layer,
        directions=rules.fit_directions.output.directions,
        provenance=rules.provenance.output.provenance,
        pareto=rules.pareto.output.pareto,
    output:
        export=directory("results/{experiment}/exports/{method}{point}"),
    log:
        "results/{experiment}/logs/export_intervention-{method}{point}.log",
    benchmark:
        "results/{experiment}/benchmarks/export_intervention-{method}{point}.tsv"
    wildcard_constraints:
        point=r"(-\d+)?",
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(8000, sae=3),
        runtime=minutes(30),
    params:
        code=code("export_intervention.py"),
    script:
        "../workflow_scripts/export_intervention.py"
