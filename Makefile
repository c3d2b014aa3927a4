# Works from any folder, one with a space in its name too: every path here is relative.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
RUN := .venv/bin/python
# bytecode must be kept: without it every process takes seconds longer to start
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo serve test check chaos bench-serving bench-overhead bench-quality bench-pipeline bench-estimates bench-kernels lock clean

help: ## Show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
	  printf '%-16s %s\n' "$$name" "$$text"; done

install: ## Make or mend .venv (every other target does it first)
	@for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec "$$python" -I app/install.py; \
	  fi; \
	done; \
	echo "install: Python 3.11 or newer is needed (tried $(PYTHON), python3.13, python3.12, python3.11); set PYTHON=" >&2; \
	exit 1

demo: install ## From 90 seeds to a served finance expert, every step shown
	@$(RUN) -m app.cli demo

serve: install ## Run API and worker until Ctrl-C
	@$(RUN) -m app.cli serve

test: install ## Run every test
	@$(RUN) -m tests.run

check: install ## Lint, formatting, types, import rule
	@$(RUN) -m tests.check

chaos: install ## Kill, cut off and confuse the service while 200 jobs run: 15 minutes at most; OPTIONS="--help"
	@$(RUN) -m tests.chaos $(OPTIONS)

bench-serving: install ## Measure serving beside its peers; QUICK=1: minutes; OPTIONS="--help"
	@$(RUN) -m benchmarks.serving $(if $(QUICK),--quick) $(OPTIONS)

bench-overhead: install ## Measure what the API itself costs, with the fake engine
	@$(RUN) -m benchmarks.overhead $(OPTIONS)

bench-quality: install ## Measure experts on real data, write docs/results.md; CONFIG= DATA= BASE= SIZE= OPTIONS=
	@$(RUN) -m benchmarks.quality $(if $(CONFIG),--config "$(CONFIG)") $(if $(DATA),--data "$(DATA)") \
	  $(if $(BASE),--base "$(BASE)") $(if $(SIZE),--size "$(SIZE)") $(OPTIONS)

bench-pipeline: install ## Measure generating, training and the novelty filter; OPTIONS="--help"
	@$(RUN) -m benchmarks.pipeline $(OPTIONS)

bench-estimates: install ## Measure how far estimates of jobs are off; OPTIONS="--help"
	@$(RUN) -m benchmarks.estimates $(OPTIONS)

bench-kernels: install ## Measure decode steps on a GPU beside its memory's bandwidth; OPTIONS="--help"
	@$(RUN) -m benchmarks.kernels $(OPTIONS)

lock: install ## Write requirements.lock anew from pyproject.toml
	@echo torch==2.13.0 | $(RUN) -m uv pip compile pyproject.toml --constraint - --universal --python-version 3.11 \
	  --all-extras --no-annotate --no-header --quiet --output-file requirements.new --upgrade
	@{ echo "# Every package but torch and what comes with it, pinned. Made by: make lock"; \
	  grep -vE '^(torch|triton|cuda-|nvidia-)' requirements.new; } > requirements.lock
	@rm requirements.new

clean: ## Remove .venv and caches; var/ with your data stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
	@find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +
