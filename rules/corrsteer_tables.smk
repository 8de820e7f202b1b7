# CorrSteer: the published tables beside the measured values.
localrules:
    corrsteer_tables,
    corrsteer_cell,
    corrsteer_table,
    corrsteer_tables_provenance,


#: Experiments whose answers the cells of the published tables use.
TABLE_RUNS = sorted(
    {
        f"{TABLES_MODEL}_{cell.task}"
        for cells_of_table in CELLS.values()
        for cell in cells_of_table.values()
    }
    & set(CORRSTEER)
)


rule corrsteer_cell:
    input:
        lambda wildcards: [
            answers_of(cell_experiment(wildcards), seed, method)
            for seed, method in cell_answers(wildcards)
        ],
    output:
        cell="results/tables/corrsteer/{table}/{cell}.json",
    log:
        "results/tables/logs/corrsteer_cell-{table}-{cell}.log",
    benchmark:
        "results/tables/benchmarks/corrsteer_cell-{table}-{cell}.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        cell=lambda wildcards: asdict(cell_of(wildcards)),
        experiment=cell_experiment,
        answers=cell_answers,
        bootstrap_resamples=cell_resamples,
        model_id=lambda wildcards: load_section(config).models[TABLES_MODEL].id,
        code=code("corrsteer_cell.py"),
    script:
        "../workflow_scripts/corrsteer_cell.py"


rule corrsteer_table:
    input:
        lambda wildcards: expand(
            rules.corrsteer_cell.output.cell, table=wildcards.table, cell=CELLS[wildcards.table]
        ),
    output:
        table="results/tables/corrsteer_{table}.csv",
    log:
        "results/tables/logs/corrsteer_table-{table}.log",
    benchmark:
        "results/tables/benchmarks/corrsteer_table-{table}.tsv"
    conda:
        "../envs/steering.yaml"
    params:
        code=code("corrsteer_table.py"),
    script:
        "../workflow_scripts/corrsteer_table.py"


rule corrsteer_tables:
    input:
        expand(rules.corrsteer_table.output.table, table=FILES),
        "results/tables/provenance.json",


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
    params:
        names=TABLE_RUNS,
        configs={run: resolved(CORRSTEER[run]) for run in TABLE_RUNS},
        codes=lambda wildcards: codes_of(*CORRSTEER_RULES, "corrsteer_tables"),
        code=code("tables_provenance.py"),
    script:
        "../workflow_scripts/tables_provenance.py"
