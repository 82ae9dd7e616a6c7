# make lab    simulated hosts on this machine, brought from bare to serving a real chat completion
# make test   every check that CI runs; make test-full adds the slow ones
# ANSIBLE=13.8.0 tests with that release of the ansible package instead of the pinned one.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Every task of Ansible is a process: without bytecode each of them compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE
export ANSIBLE_FORCE_COLOR ?= $(if $(MAKE_TERMOUT),1,)

.PHONY: help
help:  ## Show this list
	@sed -nE 's/^([a-z-]+):.*##[[:space:]]*(.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/.run: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ": name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt
	$(if $(ANSIBLE),$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check ansible==$(ANSIBLE))
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt requirements-plots.txt
	$(VENV)/bin/pip install --quiet --no-compile --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: lab
lab: $(VENV)/.run  ## Bring up two simulated hosts and serve a completion from each
	ansible-playbook playbooks/lab.yml -i inventories/lab

.PHONY: down
down: $(VENV)/.run  ## Remove the simulated hosts, keep the images
	ansible-playbook playbooks/lab_down.yml -i inventories/lab

.PHONY: clean
clean:  ## Remove everything that make lab and make test made
	for state in .lab/*/; do [ ! -d $$state ] || LAB_NAME=$$(basename $$state) ansible-playbook playbooks/lab_down.yml -i inventories/lab; done
	[ ! -e $(VENV)/.run ] || ansible-playbook playbooks/lab_down.yml -i inventories/lab -e lab_purge=true
	rm -rf $(VENV) .lab .cache .ansible .benchmarks .hypothesis .pytest_cache gpuhosts-inference-*.tar.gz
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: test
test: lint sanity molecule unit  ## Every check that CI runs

.PHONY: test-full
test-full: export PYTEST_ADDOPTS := $(PYTEST_ADDOPTS) -m ''
test-full: SLOW_SCENARIOS :=
test-full: test  ## The same, and what is slow or rare

.PHONY: lint
lint: $(VENV)/.dev  ## yamllint and ansible-lint, profile production
	yamllint .
	ansible-lint

.PHONY: sanity
sanity: $(VENV)/.dev  ## ansible-test sanity
	tests/sanity/run

# Build two more engines, and one with a compiler; six hosts, rolled out again and again; a site that is cut off; and two hosts that Ray joins.
SLOW_SCENARIOS := lanes flash_attn_wheel fleet bundle ray_cluster
.PHONY: molecule
molecule: $(VENV)/.dev  ## The lab from bare to serving: check, converge, idempotence, verify
	molecule test --all $(addprefix --exclude ,$(SLOW_SCENARIOS))

# promtool, Prometheus and node_exporter as the distribution has them, unpacked: installing them would start them. Elsewhere than on Debian and Ubuntu
# the tests take those on the path.
PROMETHEUS := .cache/prometheus
.PHONY: $(PROMETHEUS)
$(PROMETHEUS): $(PROMETHEUS)/.unpacked
$(PROMETHEUS)/.unpacked:
	@mkdir -p $(@D)
	@! command -v apt-get >/dev/null || { \
	  cd $(@D); fetch() { apt-get download -qq -o APT::Sandbox::User=root prometheus prometheus-node-exporter; }; \
	  fetch || { apt-get update -qq && fetch; } || { echo "apt-get cannot download prometheus: run apt-get update as root"; exit 1; }; \
	  for package in *.deb; do dpkg-deb --extract $$package .; done; rm *.deb; }
	@touch $@

# HAProxy and the libraries that this machine lacks for it, in the same way.
HAPROXY := .cache/haproxy
.PHONY: $(HAPROXY)
$(HAPROXY): $(HAPROXY)/.unpacked
$(HAPROXY)/.unpacked:
	@mkdir -p $(@D)/partial
	@! command -v apt-get >/dev/null || command -v haproxy >/dev/null || { \
	  cd $(@D); fetch() { apt-get install -qq --yes --download-only --no-install-recommends -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
	    -o Dir::Cache::archives=$$PWD/ haproxy >/dev/null; }; \
	  fetch || { apt-get update -qq && fetch; } || { echo "apt-get cannot download haproxy: run apt-get update as root"; exit 1; }; \
	  for package in *.deb; do dpkg-deb --extract $$package .; done; rm *.deb; }
	@touch $@

# A browser for the report's page. It starts nothing, so it is installed.
BROWSER := .cache/browser
.PHONY: $(BROWSER)
$(BROWSER):
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  install() { apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }; \
	  install || { apt-get update -qq && install; } || { echo "The report's page is tested in a browser: install chromium or google-chrome"; exit 1; }; }

.PHONY: unit
unit: $(VENV)/.dev $(PROMETHEUS) $(HAPROXY) $(BROWSER)  ## Unit tests, and the lab's answers to bad input
	pytest

.PHONY: accuracy
accuracy: $(VENV)/.run  ## Predicted beside measured memory of real starts; CASES= and MODELS= name other files
	python3 tools/accuracy.py

.PHONY: bench-planner
bench-planner: $(VENV)/.dev  ## Plans per second on one core
	pytest tests/bench --benchmark-timer=time.process_time --benchmark-columns=min,median,ops --benchmark-sort=name

.PHONY: bench-fanout
bench-fanout: $(VENV)/.dev  ## Seconds to bring 1 to 16 hosts a model, by four ways; needs root, OPTIONS= such as --ways tiers
	python3 tests/bench/fanout.py $(OPTIONS)

.PHONY: bench-fleet
bench-fleet: $(VENV)/.dev  ## What 1 to 32 hosts cost the controller, bare and again; OPTIONS= such as --hosts 1,8
	python3 tests/bench/fleet.py $(OPTIONS)

.PHONY: bench-controller
bench-controller: $(VENV)/.dev  ## What forks and SSH's settings cost the controller of 8 converged hosts
	python3 tests/bench/controller.py $(OPTIONS)

LITELLM := .cache/litellm
.PHONY: bench-gateway
bench-gateway: $(VENV)/.dev $(HAPROXY)  ## Latency and requests per second through the gateway, directly, and through LiteLLM's proxy
	@[ -x $(LITELLM)/bin/litellm ] || { $(PYTHON) -m venv $(LITELLM) && $(LITELLM)/bin/pip install --quiet --no-compile --disable-pip-version-check 'litellm[proxy]==1.108.7'; }
	python3 tests/bench/gateway.py --litellm $(LITELLM)/bin/litellm $(OPTIONS)

.PHONY: build
build: $(VENV)/.run  ## The collection's artifact
	ansible-galaxy collection build --force
