# Everything a person or CI runs. The first target sets up .venv by itself.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test test-clients check fix docs serve benchmarks endurance gpu-check setup constraints clean

PYTHON := .venv/bin/python
# Two stamps: what the quickstart and the service need is installed first, the tools of development on top of it.
DEMO := .venv/.installed-demo
DEV := .venv/.installed-dev
# Packages whose dependencies are none of ours, to be called against the service: for Python, and for Node where it is.
CLIENTS := tests/clients/.venv/.installed $(if $(shell command -v npm),tests/clients/node_modules/.installed)

# Nothing reports home, and tokenizers stay quiet when Ray forks.
export RAY_USAGE_STATS_ENABLED ?= 0
export TOKENIZERS_PARALLELISM ?= false
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# Ray starts dozens of processes: without bytecode on disk each would compile the package again.
export PYTHONDONTWRITEBYTECODE :=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(DEMO) ## fine-tune, score, export and serve on this machine, offline, in minutes
	$(PYTHON) -m jobs.quickstart --config jobs/recipes/quickstart.yaml

serve: $(DEMO) ## serve the last quickstart's model, or the embedded one, on 127.0.0.1:8000
	$(PYTHON) -m jobs.serve_model

# A test never reaches for the Hub: what is missing offline must fail here, not at a user's desk.
test: export HF_HUB_OFFLINE := 1
test: EVERY_CORE := --numprocesses auto --dist loadfile
test: COVERAGE := $(if $(CI),--cov --cov-report=term:skip-covered)
test: HERE := not gpu and not network and not endurance
test: $(DEV) $(if $(CI),$(CLIENTS)) ## run all tests: the fast ones first, then the slow ones, then Ray's and the server's
	$(PYTHON) -m pytest --budget default $(EVERY_CORE) $(COVERAGE)
	$(PYTHON) -m pytest --budget slow $(EVERY_CORE) -m 'slow and not ray and not serve and $(HERE)'
	$(PYTHON) -m pytest --budget integration tests/integration tests/data/corpora -m '(ray or serve) and $(HERE)'

test-clients: $(DEV) $(CLIENTS) ## call a service with LiteLLM, LangChain and, where Node is, with OpenAI's and Vercel's packages
	$(PYTHON) -m pytest tests/integration/serving/test_clients.py -m serve -rs

check: $(DEV) ## format, lint, types and layers, changing nothing
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

fix: $(DEV) ## format, and repair what ruff can repair
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(DEV) ## write the generated parts of docs/: settings tables, layers, the tree
	$(PYTHON) -m docs.generate

# Not part of CI: numbers need a quiet machine, and the peers bring a gigabyte of their own.
BENCHMARKS := log_mel decode linear pipeline training evaluation launchers checkpoint_stall lora_memory \
  whisper_parity word_times long_form silence speculative
benchmarks: $(DEV) ## measure beside peers, into runs/benchmarks: hours; BENCHMARKS="log_mel decode" for some
	$(PYTHON) -m pip install -c constraints.txt -e '.[dev,benchmarks]'
	@for name in $(BENCHMARKS); do \
	  echo "benchmarks.$$name"; \
	  $(PYTHON) -m benchmarks.$$name --output runs/benchmarks/$$name.json || exit 1; \
	done

# Hours, and never part of CI: what a few kills or steps would not show. docs/endurance.md has the last results.
ENDURANCE := training_kills worker_kills serve_kills serve_load serve_abuse upload_fuzz
endurance: export HF_HUB_OFFLINE := 1
endurance: $(DEV) ## faults by the hundred and learning to the end, into benchmarks/results/endurance: hours
	@for name in $(ENDURANCE); do \
	  echo "benchmarks.$$name"; \
	  $(PYTHON) -m benchmarks.$$name --output benchmarks/results/endurance/$$name.json || exit 1; \
	done
	$(PYTHON) -m pytest -m endurance tests/endurance --endurance-results benchmarks/results/endurance

# For a machine with a GPU, on which nothing of this has run yet. WEIGHTS, RECORDINGS and PEAK_TFLOPS are the caller's.
WEIGHTS := openai/whisper-base
RECORDINGS := ../shared/data/real
gpu-check: $(DEV) ## on a machine with a GPU: its tests, training in fp16 and bf16, serving; into runs/gpu_check
	@$(PYTHON) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("torch finds no CUDA device: run gpu-check on a machine with a GPU and a CUDA build of torch")'
	$(PYTHON) -m pytest -m gpu -rs
	for precision in fp16 bf16; do \
	  $(PYTHON) -m benchmarks.training --device cuda --precision $$precision --shape small --batch-size 32 --num-steps 30 \
	    --num-warmup-steps 10 --repetitions 3 $(if $(PEAK_TFLOPS),--peak-tflops $(PEAK_TFLOPS)) \
	    --output runs/gpu_check/training_$$precision.json || exit 1; \
	done
	$(PYTHON) -m benchmarks.serve_load --mode closed --device cuda --model $(WEIGHTS) --variant torch --num-clients 16 \
	  --recordings $(RECORDINGS) --output runs/gpu_check/serving.json

setup: $(DEV) ## only make .venv and install into it

# `command -v` alone is not enough: a version manager's shim exists for Pythons that are not installed.
$(DEMO): pyproject.toml constraints.txt
	@found=; \
	for candidate in $(PYTHON) python3 python3.11 python3.12 python3.13; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Sottovoce needs Python 3.11 or newer; neither python3 nor python3.11, 3.12 or 3.13 on PATH is." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12)" >&2; \
	  echo "and run the same command again." >&2; \
	  exit 1; \
	fi; \
	if [ "$$found" != $(PYTHON) ]; then \
	  $$found -m venv --clear .venv || { \
	    echo "Python's venv module is missing (Debian, Ubuntu: apt install python3-venv)." >&2; rm -rf .venv; exit 1; }; \
	fi
	$(PYTHON) -m pip install -c constraints.txt -e '.[demo]'
	@touch $@

$(DEV): $(DEMO)
	$(PYTHON) -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

tests/clients/.venv/.installed: tests/clients/requirements.txt | $(DEMO)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install -r $<
	@touch $@

tests/clients/node_modules/.installed: tests/clients/package.json tests/clients/package-lock.json
	cd tests/clients && npm ci --ignore-scripts
	@touch $@

constraints: ## write constraints.txt anew from what .venv holds
	@sed -n '/^#/p' constraints.txt > .constraints.new
	@$(PYTHON) -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | grep -vE '^(nvidia|cuda|triton)' >> .constraints.new
	@mv .constraints.new constraints.txt

clean: ## remove .venv, caches and coverage; runs/ stays
	rm -rf .venv tests/clients/.venv tests/clients/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage coverage.xml dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
