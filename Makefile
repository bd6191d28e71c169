# Everything a person does here, from a fresh machine with Python 3.11 or newer. `make` alone prints the list.
# Nothing outside this folder is touched: the environment lives in .venv and is made again when the pins change.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help demo up test test-all engine-transformers faults check format fuzz audit coverage mutants accuracy bench scale fleet chaos soak pictures screenshots words docs dist pins clean FORCE

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export UV_LINK_MODE = copy
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PARTS := pyproject.toml constraints.txt
RUN := -e '.[models]'
DEV := -e '.[models,dev,docs]'
INSTALL := uv pip install -q --python $(BIN)/python -c constraints.txt -b constraints.txt
PYTEST := $(BIN)/python -m pytest -q -rs -n 4 --dist loadfile --no-loadscope-reorder
HOUSE := tests/test_tidy.py tests/test_imports.py tests/test_reference.py
# `make check` holds the house rules; the everyday tests do not go through them once more.
EVERYDAY := $(PYTEST) -m 'not slow' $(HOUSE:%=--ignore=%)

# A .venv that was moved or whose Python is gone is made again.
ifneq ($(shell $(BIN)/python -c 'print(open(".venv/home").read(), end="")' 2>/dev/null),$(CURDIR))
STALE := FORCE
endif

# with-dots NAME, COMMAND: runs COMMAND with a dot a second; what it printed is shown only when it fails.
define with-dots
@printf '%s ' '$(1)'; \
( $(2) ) > .venv/install.log 2>&1 & pid=$$!; \
trap 'kill $$pid 2>/dev/null; echo; exit 130' INT TERM; \
while kill -0 $$pid 2>/dev/null; do printf .; sleep 1; done; \
if wait $$pid; then echo ' done'; else echo ' failed'; cat .venv/install.log; exit 1; fi
endef

help: ## this list
	@echo 'Joulebox: pick an open model, put in a prompt, get the answer and its receipt.'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s%s\n", $$1, $$2 }'

demo: .venv/run ## one real question to a real model, with its receipt, in the terminal and as demo-receipt.html
	@$(BIN)/joulebox demo

up: .venv/run ## the service with its web page, until Ctrl-C
	@$(BIN)/joulebox up

test: .venv/dev ## the everyday tests
	$(EVERYDAY)

test-all: .venv/dev ## every test, the slow ones too
	$(EVERYDAY)
	$(BIN)/python -m pytest -q -rs -n 2 --dist worksteal -m slow

engine-transformers: .venv/dev ## the engine transformers with the real thing, in an environment of its own (fetches 3 GB)
	$(BIN)/python tests/torch_peer.py
	$(BIN)/python -m pytest -q -rs tests/test_engines.py tests/test_engine_transformers.py -k transformers

faults: .venv/dev ## every fault of every instrument at every point of a run, for every length; about an hour
	JOULEBOX_FAULTS=all $(BIN)/python -m pytest -q -n 2 --dist load -m slow tests/test_faults.py

check: .venv/dev ## format, lint, strict types, layers, the house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) $(HOUSE) tests/test_docs.py -m 'not slow'

format: .venv/dev ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

SECONDS ?= 480
fuzz: .venv/dev ## every parser of what comes from outside, by atheris, over a million inputs (SECONDS=480 for all together)
	@$(BIN)/$(INSTALL) -e '.[fuzz]'
	$(BIN)/python tests/fuzz --seconds $(SECONDS)

coverage: .venv/dev ## which branches the everyday tests reach; fails under 100 % of the pure core or 95 % of all
	$(BIN)/python tests/covered.py

mutants: .venv/dev ## do the tests of the arithmetic tell a changed line? (FILE=energy: one file; SAMPLE=500: by lot)
	@$(BIN)/uv pip install -q --no-deps --target build/mutmut -r tests/peers/mutmut.txt
	PYTHONPATH=build/mutmut $(BIN)/python tests/mutants.py $(FILE) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

audit: .venv/dev ## every pin: what is installed, its licence, its files, and known vulnerabilities where OSV can be asked
	$(BIN)/python tests/audit.py

accuracy: .venv/dev ## receipts against the known truth of the simulated machine, in real time (PART=name: only that part)
	$(BIN)/python tests/accuracy.py $(if $(PART),--only $(PART))

bench: .venv/dev ## what Joulebox costs beside its peers; writes docs/benchmarks.md (PART=name: only that part; 15 minutes)
	$(BIN)/python tests/benchmarks.py $(if $(PART),--only $(PART)) --suite "$(EVERYDAY)"

scale: .venv/dev ## server and Postgres behind backlogs of up to a million prompts; writes docs/scale.md (15 minutes)
	$(BIN)/python tests/scale.py

fleet: .venv/dev ## how silent a working node is, and how soon one is missed; writes docs/fleet.md (5 minutes, as root)
	$(BIN)/python tests/fleet.py

SEED ?= 1
chaos: .venv/dev ## faults of every kind over the real service; writes docs/reliability.md (as root; SEED=2, PART=sqlite)
	$(BIN)/python tests/chaos.py --seed $(SEED) $(if $(PART),--part $(PART))

MINUTES ?= 30
soak: .venv/dev ## a steady stream of prompts, and what grows meanwhile; writes into docs/reliability.md (MINUTES=30)
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

pictures: .venv/dev ## the pictures of the README, by a real run in headless Chromium
	$(BIN)/python tests/pictures.py

FOLDER ?= build/screenshots
screenshots: .venv/dev ## every page in both schemes, wide and narrow, in every language (FOLDER=build/screenshots)
	$(BIN)/python tests/screenshots.py $(FOLDER)

words: .venv/dev ## bring the translations of the pages up to date; prints what is missing
	@$(BIN)/python tests/words.py

docs: .venv/dev ## the documentation: docs/reference from the code, then the site into build/site; strict, offline
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/website.py

dist: .venv/dev ## wheel and sdist into dist, with the list of all that comes along (SBOM, CycloneDX)
	rm -rf dist build/sbom
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m venv --without-pip build/sbom
	$(BIN)/uv pip install -q --python build/sbom/bin/python -c constraints.txt "$$(echo dist/*.whl)[all]"
	$(BIN)/uv tool run -q --from cyclonedx-bom cyclonedx-py environment --of JSON -o dist/joulebox.cdx.json build/sbom/bin/python

pins: .venv/dev ## newest versions into constraints.txt
	$(BIN)/uv pip compile -q --upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --universal --python-version 3.11 --all-extras pyproject.toml -o constraints.txt

clean: ## remove the environment and everything made by tools (not your data)
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/home: $(STALE)
	@python="$$(sh .ci/find-python)" && \
	echo "Making .venv with $$("$$python" --version)" && \
	"$$python" -m venv --clear .venv && printf %s '$(CURDIR)' > .venv/home

.venv/run: .venv/home $(PARTS)
	$(call with-dots,Installing the installer (uv),$(BIN)/python -m pip install -q -c constraints.txt uv)
	$(call with-dots,Installing Joulebox and its model engine,$(BIN)/$(INSTALL) $(RUN) || \
	  $(BIN)/python -m pip install -q -c constraints.txt $(RUN))
	@touch $@

.venv/dev: .venv/run
	$(call with-dots,Installing what tests and checks need,$(BIN)/$(INSTALL) $(DEV) || \
	  $(BIN)/python -m pip install -q -c constraints.txt $(DEV))
	@touch $@
