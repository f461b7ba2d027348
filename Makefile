# `make lab` opens the lesson, `make test` proves it. Both see to their environment first:
# bootstrap.sh installs only if what is installed differs from what is asked for.

PY = .venv/bin/python

.PHONY: help lab present test test-all suite slow notebooks clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 after lab or test chooses the Python of a new .venv"

lab: ## open the lesson in JupyterLab
	@sh bootstrap.sh lab
	$(PY) -m lorakit.cli lab

present: ## open the teacher's screen
	@sh bootstrap.sh lab
	$(PY) -m lorakit.cli present

test: ## check style and types, run every test and every notebook
	@sh bootstrap.sh test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	@$(MAKE) --no-print-directory suite

test-all: test ## the same, then notebooks with cells run twice, in parts, and in a browser
	@$(MAKE) --no-print-directory slow

# The tests and the notebooks alone, in the environment that PY names. On one device everywhere,
# because notebooks are compared with their stored outputs; the number of threads changes none.
# Two tests at a time, with a thread each, are done sooner than one with two.
suite slow notebooks: export LORAKIT_DEVICE = cpu
suite slow: export LORAKIT_TEST = 1
suite: export OMP_NUM_THREADS = 1
slow notebooks: export OMP_NUM_THREADS = 2
# Beside a browser, threads that spin while they wait slow each other tenfold.
slow: export OMP_WAIT_POLICY = PASSIVE
suite:
	$(PY) -m pytest -n 2 tests
	$(PY) -m pytest -n 2 --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=1800 \
		notebooks

slow:
	$(PY) -m pytest tests/slow

# In a copy, so that nothing that somebody has answered here is stored with a page.
PAGES = .venv/pages/notebooks
notebooks: ## run every notebook and store its outputs
	@sh bootstrap.sh test
	rm -rf $(PAGES)
	mkdir -p $(PAGES)
	cp notebooks/*.ipynb $(PAGES)
	$(PY) -m jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.record_timing=False \
		$(PAGES)/*.ipynb
	cp $(PAGES)/*.ipynb notebooks

clean: ## remove the environment; the next command makes it anew
	rm -rf .venv
