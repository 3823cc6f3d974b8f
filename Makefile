# `make help` lists what there is. Each target does its own set-up.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck mutants faults campaign planted fuzz board docs lock clean

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.kerbstone
# On two cores: most tests wait for a street half of their time.
JOBS := 3

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements.txt tools/setup_machine.sh
	@bash tools/setup_machine.sh $(VENV) 1>&2
	@touch $(STAMP)

setup: $(STAMP) ## the environment in .venv/ and the programs the street needs

demo: $(STAMP) ## a virtual street for a minute; options: make demo DEMO="--for 20 --json"
	@$(VENV)/bin/kerb demo $(DEMO)

lint: $(STAMP) ## style and dependency rules
	@mkdir -p build
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/lint-imports --no-cache > build/lint-imports.log 2>&1 || { cat build/lint-imports.log; exit 1; }

typecheck: $(STAMP) ## mypy for the host; pyright with the ESP32's stubs for the firmware
	@$(VENV)/bin/mypy
	@bash tools/typecheck_firmware.sh $(VENV)

test: $(STAMP) ## everything that a change must pass
	@$(MAKE) --no-print-directory lint typecheck
	@$(PY) -m pytest -n $(JOBS) --dist worksteal

mutants: $(STAMP) ## break each mechanism on purpose and expect its test to fail
	@$(PY) tools/mutants.py

faults: $(STAMP) ## power cuts, kills, disturbances, simulated years: 1 to 2 hours; goes on where it stopped
	@$(VENV)/bin/kerb faults plan faults $(FAULTS)

campaign: $(STAMP) ## the same overnight, three and more times as much; goes on where it stopped
	@$(VENV)/bin/kerb faults plan campaign --work build/campaign $(FAULTS)

planted: $(STAMP) ## plant known bugs and let the simulation find each of them
	@$(PY) tools/planted.py

FOR ?= 600
fuzz: $(STAMP) ## a stranger's bytes for every decoder; options: make fuzz FOR=600 FUZZ="--target frame"
	@$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install -q --require-hashes \
		--only-binary :all: --disable-pip-version-check -r requirements-fuzz.txt 2>/dev/null || \
		echo 'fuzz: atheris cannot be installed here: our own engine takes its place' >&2
	@$(VENV)/bin/kerb fuzz --for $(FOR) $(FUZZ)

board: $(STAMP) ## build/board/: the tree as it lies on an ESP32
	@$(VENV)/bin/kerb board

docs: $(STAMP) ## write the generated tables of docs/ anew
	@$(PY) tools/generate_docs.py

lock: $(STAMP) ## pin every dependency with its hashes, without an index address
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --extra tools --extra sim --extra dev \
		pyproject.toml -o requirements.txt
	@echo 'micropython-esp32-stubs>=1.26' | $(VENV)/bin/uv pip compile -q --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header - \
		-o requirements-stubs.txt
	@printf '%s\n' "atheris<3.1; python_version < '3.12'" "atheris>=3.1; python_version >= '3.12'" | \
		$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements-fuzz.txt

clean: ## everything that was made, the environment included
	rm -rf $(VENV) build dist typings .pytest_cache .mypy_cache .ruff_cache .hypothesis
