# Code, configuration, revisions and versions behind the results of CorrSteer.
localrules:
    corrsteer_tables_provenance,


#: Scripts of the rules that a result of CorrSteer comes from.
CORRSTEER_SCRIPTS = [
    "corrsteer_answer.py",
    "corrsteer_bridge.py",
    "corrsteer_examples.py",
    "corrsteer_fetch.py",
    "corrsteer_fine_tune.py",
    "corrsteer_merge.py",
    "corrsteer_plan.py",
    "corrsteer_report.py",
    "corrsteer_select.py",
    "corrsteer_validate.py",
    "provenance.py",
]

#: Experiments that a cell of a published table is measured from.
TABLE_RUNS = sorted(
    {
        f"{load_section(config).tables_model}_{cell.task}"
        for cells_of_table in CELLS.values()
        for cell in cells_of_table.values()
    }
    & set(CORRSTEER)
)


rule corrsteer_provenance:
    input:
        resources=rules.corrsteer_fetch.output.resources,
        products=[rules.corrsteer_report.output.table, rules.corrsteer_report.output.page],
    output:
        provenance="results/{run}/provenance.json",
    log:
        "results/{run}/logs/corrsteer_provenance.log",
    benchmark:
        "results/{run}/benchmarks/corrsteer_provenance.tsv"
    group:
        "corrsteer_report"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        name=lambda wildcards: wildcards.run,
        config=lambda wildcards: corrsteer_resolved(wildcards.run),
        codes={script: code(script) for script in CORRSTEER_SCRIPTS},
        code=code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"


# The tables take answers of many experiments, whose own provenance may never be asked for.
rule corrsteer_tables_provenance:
    input:
        resources=expand(rules.corrsteer_fetch.output.resources, run=TABLE_RUNS),
        products=expand(rules.corrsteer_table.output.table, table=FILES),
    output:
        provenance="results/tables/provenance.json",
    log:
        "results/tables/logs/corrsteer_tables_provenance.log",
    benchmark:
        "results/tables/benchmarks/corrsteer_tables_provenance.tsv"
    conda:
        "../envs/steering.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(15),
    params:
        names=TABLE_RUNS,
        configs={run: corrsteer_resolved(run) for run in TABLE_RUNS},
        codes={
            script: code(script)
            for script in [*CORRSTEER_SCRIPTS, "corrsteer_cell.py", "corrsteer_table.py"]
        },
        code=code("tables_provenance.py"),
    script:
        "../workflow_scripts/tables_provenance.py"
