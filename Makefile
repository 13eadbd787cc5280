# `make study` from a fresh clone: installs into .venv, runs a small study on real QM9, registers its
# best network, and ends with a champion that can be served, that network or the pretrained one. Every
# target installs first if pyproject.toml or the lock has changed.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The small study of `make study`; `mlflow run . -P n_trials=1800` is the long form.
STUDY ?= -P n_trials=12 -P train_size=4000 -P max_epochs=9 -P trial_minutes=1 -P final_minutes=3 -P timeout_minutes=4

# A file's tests stay in one process: they share what their fixtures trained. xdist's own order,
# files of many tests first, would leave the longest one, which has few, to the end.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install study serve test test-all pretrained bench lint format lock clean

help:  ## Show these lines
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[train,serve,cluster,dev]'
	touch $@

install: $(INSTALLED)  ## Install into .venv

study: $(INSTALLED)  ## Run a small study on real QM9 and register its best model
	PATH="$(abspath $(BIN)):$$PATH" mlflow run . --env-manager local $(STUDY)

serve: $(INSTALLED)  ## Serve the champion, or the pretrained model, on http://127.0.0.1:3000
	$(BIN)/qm9flow serve

test: $(INSTALLED)  ## Fast tests, five minutes at most
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(INSTALLED)  ## All tests: kills, servers, long fuzzing
	$(BIN)/python -m pytest $(PARALLEL) -m ''

VERSION ?= champion
# rough.csv for a version whose run made the networks for other geometries than DFT's.
CURVES ?= curves.csv

pretrained: $(INSTALLED)  ## Make a registered version the one that comes with qm9flow (VERSION=3)
	rm -rf build/pretrained
	$(BIN)/qm9flow export $(VERSION) --output build/pretrained/bundle \
	  --evidence build/pretrained/validation.npz --curves build/pretrained/$(CURVES)
	mkdir -p qm9flow/pretrained
	rm -rf qm9flow/pretrained/bundle
	mv build/pretrained/* qm9flow/pretrained/
	rmdir build/pretrained

# A Python with chemprop and SchNetPack (benchmarks/throughput.py says how); without, they are left out.
PEERS_PYTHON ?= $(BIN)/python

bench: $(INSTALLED)  ## Print the ratios that the README quotes
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/nnconv.py
	$(BIN)/python benchmarks/gradient_monitor.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/bulk.py --rows 500 --odd-rows 20000
	$(BIN)/python benchmarks/serving.py --seconds 3 --turns 1
	$(BIN)/python benchmarks/throughput.py --seconds 1 --repeats 3 \
	  --schnetpack-python $(PEERS_PYTHON)
	$(BIN)/python benchmarks/onnx_latency.py --no-compile --seconds 3
	$(BIN)/python benchmarks/accuracy_per_minute.py --minutes 2 --out work/accuracy-short \
	  --chemprop-python $(PEERS_PYTHON)
	$(BIN)/python benchmarks/study_overhead.py --finished 100 1000
	$(BIN)/python benchmarks/study.py --trials 6 --train-size 200 --out work/study-short

lint: $(INSTALLED)  ## Format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## Format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What a service needs besides: mlflow-skinny asks a registry, and needs neither pandas nor torch.
SERVING := bentoml numpy rdkit click packaging tqdm mlflow-skinny sqlalchemy
ONNXRUNTIME = onnxruntime==$$(sed -n 's/^onnxruntime-gpu==//p' requirements.lock)
COMMA := ,
LOCK_SERVING = { echo '\# What a service needs on a $(1), all of it: made by `make lock`.'; \
	  build/lock/bin/python -m pip install --quiet --dry-run --ignore-installed --report - \
	    --constraint requirements.lock $(SERVING) $(2) \
	  | $(BIN)/python -c 'import json, sys; print(*sorted((item["metadata"]["name"] + "==" \
	    + item["metadata"]["version"] for item in json.load(sys.stdin)["install"]), key=str.lower), sep="\n")'; }

lock: $(INSTALLED)  ## Write requirements.lock from what is installed
	$(BIN)/python -m pip install --quiet --editable '.[train,serve,cluster,dev]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' \
	  | grep -viE '^(pip|setuptools|wheel)==' | sort -f > requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	$(call LOCK_SERVING,CPU,"$(ONNXRUNTIME)") > serving/requirements.txt
	$(call LOCK_SERVING,GPU,'onnxruntime-gpu[cuda$(COMMA)cudnn]' nvidia-cublas) > serving/requirements-gpu.txt

clean:  ## Remove the environment and caches; stores and QM9's cache stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
