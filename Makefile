# Glasshouse: every command works in a fresh clone with only Python 3.11+, pip and make.
#
#   make demo      grow an assistant from nothing on this machine's CPU, offline (15 to 20 minutes)
#   make test      the fast suite
#   make parity    comparisons with peers (transformers, peft, trl, lm-eval, the OpenAI and Anthropic SDKs)
#   make accept    whole runs on seeds never used while tuning (about two hours)
#   make bench     speed beside peers: NANOGPT=path/to/nanoGPT for the Shakespeare race,
#                  MODEL=runs/pocket/sft/model for many clients at once
#   make lint      ruff, pyright, import-linter
#   make docs      the documentation site, into site/
#
# Without a GPU on Linux, take PyTorch's much smaller CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
      $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
SEEDS ?= 30413 31517
MODEL ?=

.PHONY: demo test parity accept bench lint docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/glasshouse run pocket

test: $(VENV)/.test
	$(BIN)/python -m pytest

parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity

accept: $(VENV)/.accept
	GLASSHOUSE_ACCEPT_SEEDS="$(SEEDS)" $(BIN)/python -m pytest -m accept -s

bench: $(VENV)/.parity
	$(BIN)/python benchmarks/tokenizer.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/determinism.py
	$(BIN)/python benchmarks/llm_overhead.py
	$(BIN)/python benchmarks/routing.py
	$(if $(GLASSHOUSE_TEST_DATA),$(BIN)/python benchmarks/documents.py $(if $(LANGEXTRACT),--langextract $(LANGEXTRACT)),@echo "set GLASSHOUSE_TEST_DATA for quotes of real contracts (and LANGEXTRACT to a Python that has it)")
	$(if $(GLASSHOUSE_TEST_DATA),$(BIN)/python benchmarks/alignment.py,@echo "set GLASSHOUSE_TEST_DATA for alignment beside trl")
	$(if $(GLASSHOUSE_TEST_DATA),$(BIN)/python benchmarks/preference_reward.py,@echo "set GLASSHOUSE_TEST_DATA for a reward model on real pairs")
	$(if $(MODEL),$(BIN)/python benchmarks/serving.py --model $(MODEL),@echo "set MODEL=runs/pocket/sft/model for many clients at once")
	$(if $(NANOGPT),$(BIN)/python benchmarks/shakespeare.py --nanogpt $(NANOGPT),@echo "set NANOGPT=path/to/nanoGPT for the Shakespeare race")

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

# Each set of packages is installed once; a change of the pins or the package file installs anew.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Glasshouse needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: constraints.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned dependencies into $(VENV) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.docs: $(VENV)/.%: $(VENV)/.installed
	$(PIP) -e '.[$*]'
	@touch $@

$(VENV)/.parity: $(VENV)/.installed
	$(PIP) -e '.[test,parity]'
	@touch $@

$(VENV)/.accept: $(VENV)/.parity
	$(PIP) -e '.[accept]'
	@touch $@

clean:
	rm -rf $(VENV) site build dist src/*.egg-info
