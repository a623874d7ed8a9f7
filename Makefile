# Everything that a person or CI runs. `make help` is the manual; `make check` is what CI runs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON := $(BIN)/python
READY  := $(VENV)/.ready
ROOMS  := $(wildcard protos/pyproject.toml provider/pyproject.toml services/*/pyproject.toml deploy/local/pyproject.toml clients/python/pyproject.toml)
# The certificates of the machine count, for uv as for pip.
export UV_SYSTEM_CERTS := true
# Compiled code is kept, in the venv: images of Python like to say that none is written, and then each
# process compiles hundreds of files, which is most of its start. A mesh has nine processes.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/.bytecode
LAST_TAG := $(shell git describe --tags --abbrev=0 2>/dev/null)

# Where a fresh machine's Python may hide; the first one that is new enough is taken.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python

##@ Start here

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n\033[1m%s\033[0m\n", substr($$0, 5) } \
	  /^[a-z][a-z-]*:.*## / { printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(READY) ## Make .venv with everything, pinned; the other targets do this by themselves

.PHONY: run
run: $(READY) ## Start the whole mesh here, development mode; ARGS="--engine scripted --port 8080 --stripe local --mtls"
	@$(PYTHON) -m darkbloom_local up $(ARGS)

.PHONY: ask
ask: export DARKBLOOM_QUESTION := $(value Q)
ask: $(READY) ## Ask the running mesh: make ask Q="What is the capital of France?"
	@$(PYTHON) -m darkbloom_local ask $(ARGS)

.PHONY: token
token: $(READY) ## Print a login of the development issuer: curl -H "Authorization: Bearer $(make -s token)"
	@$(PYTHON) -m darkbloom_local token $(ARGS)

.PHONY: demo
demo: $(READY) ## Get one sealed, billed answer from a real model and check all of it; last line is JSON
	@$(PYTHON) -m darkbloom_local demo $(ARGS)

##@ Tests

.PHONY: test
test: $(READY) ## All tests, over real processes and real stores; ARGS="-k lane -x"
	@$(BIN)/pytest $(ARGS)

.PHONY: test-unit
test-unit: $(READY) ## Only the pure ones, in seconds
	@$(BIN)/pytest tests/unit $(ARGS)

.PHONY: test-rooms
test-rooms: $(READY) ## All but the mesh and the browser, two files at a time
	@$(BIN)/pytest -n 2 --dist loadfile tests/unit tests/contract tests/component $(ARGS)

.PHONY: test-mesh
test-mesh: $(READY) ## Only those that start a whole mesh, one after the other
	@$(BIN)/pytest tests/mesh tests/drills $(ARGS)

.PHONY: test-browser
test-browser: export DARKBLOOM_TEST_ARTEFACTS ?= .state/artefacts
test-browser: $(READY) ## Walk people's journeys through the console; needs chromium; pictures in .state/artefacts
	@$(BIN)/pytest tests/browser $(ARGS)

.PHONY: test-node
test-node: $(READY) ## Run the stock Node clients against the gateway; installs them under tests/node
	@cd tests/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@$(BIN)/pytest tests/component/gateway/test_node.py tests/component/gateway/test_quickstart.py $(ARGS)

.PHONY: soak-replicas
soak-replicas: $(READY) ## Drain and kill both router replicas under load with 200 providers, ROUNDS=3 times
	@DARKBLOOM_SOAK_ROUNDS=$(or $(ROUNDS),3) $(BIN)/pytest tests/mesh/test_fleet_of_links.py $(ARGS)

.PHONY: soak-engine
soak-engine: $(READY) ## Run hours of the engine's traffic in minutes; memory and threads must stay flat; ROUNDS=60
	@DARKBLOOM_SOAK_ENGINE_ROUNDS=$(or $(ROUNDS),60) $(BIN)/pytest tests/mesh/engine/test_soak.py $(ARGS)

.PHONY: compat
compat: $(READY) ## Run the previous release (tests/compat/PREVIOUS) beside today's, in every mixture of a deploy
	@$(BIN)/pytest tests/compat tests/mesh/test_previous_provider.py $(ARGS)

.PHONY: bench
bench: $(READY) ## Measure the mesh; last line is JSON; ARGS="--quick" for the smallest run
	@$(PYTHON) -m tests.bench $(ARGS)

.PHONY: bench-engine
bench-engine: $(READY) ## Measure our engine against mlx_lm.server of the same version; last line is JSON; ARGS="--quick" for one round
	@$(PYTHON) -m tests.bench.engine $(ARGS)

.PHONY: simulate
simulate: $(READY) ## Simulate a fleet with the router's own code; last line is JSON; ARGS="--providers 1000 --load 0.7"
	@$(PYTHON) -m darkbloom_router.simulate $(ARGS)

.PHONY: capacity
capacity: $(READY) ## Print pods, stores and cost of 1,000 to 100,000 providers; ARGS="--load 0.3 --core-hour 0.05", "--help"
	@$(PYTHON) -m tools.capacity $(ARGS)

.PHONY: json-runs
json-runs: $(READY) ## Send schemas and forced calls through the mesh and validate every answer; last line is JSON; ARGS="--runs 5"
	@$(PYTHON) -m tests.json_runs $(ARGS)

.PHONY: chaos-billing
chaos-billing: $(READY) ## Tear the database from under every command of billing; ARGS="--seed 1 --seconds 30"
	@$(PYTHON) -m tests.chaos $(ARGS)

.PHONY: drills
drills: $(READY) ## Break things on purpose and count what is lost; last line is JSON; ARGS="--only pod-kill --seed 1 --list"
	@GRPC_ENABLE_FORK_SUPPORT=0 $(PYTHON) -m tests.drills $(ARGS)

.PHONY: schemathesis
schemathesis: $(READY) ## Make many requests out of both OpenAPI documents and hold the answers to them; EXAMPLES=100
	@DARKBLOOM_SCHEMATHESIS_EXAMPLES=$(or $(EXAMPLES),100) $(BIN)/pytest --timeout 3600 tests/component/gateway/test_schemathesis.py $(ARGS)

.PHONY: fuzz
fuzz: $(READY) ## Fuzz every decoder of what strangers send; last line is JSON; ARGS="--seconds 600 --only receipt"
	@DARKBLOOM_FLIP_STEP=1 $(BIN)/pytest -q tests/unit/edge/apple/test_byte_flips.py
	@$(PYTHON) -m tests.fuzz $(ARGS)

##@ Code

.PHONY: format
format: $(READY) ## Rewrite the code as it should look
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

.PHONY: lint
lint: $(READY) ## Find faults of style and likely mistakes: ruff
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

.PHONY: types
types: $(READY) ## Check the types: mypy, strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(READY) ## Check who imports whom (.importlinter)
	@$(BIN)/lint-imports --no-logo

.PHONY: deps
deps: $(READY) ## Check that each room declares what it imports, and nothing else
	@$(PYTHON) tools/deps.py

##@ Contracts and pins

.PHONY: protos
protos: $(READY) ## Generate protos/gen, and the pages about it
	@$(PYTHON) tools/protos.py
	@$(PYTHON) -m tools.reference

.PHONY: protos-check
protos-check: $(READY) ## Fail where protos/gen is not what `make protos` would write
	@$(PYTHON) tools/protos.py --check

.PHONY: openapi
openapi: $(READY) ## Write docs/openapi.json, the document that a gateway serves
	@$(PYTHON) tools/openapi.py

.PHONY: reference
reference: $(READY) ## Write docs/reference and llms.txt from the code
	@$(PYTHON) -m tools.reference

.PHONY: proto-lint
proto-lint: $(READY) ## Check the protos: buf lint, and buf breaking against the last release tag
	@BUF_CACHE_DIR=$(VENV)/.buf $(BIN)/buf lint
ifneq ($(LAST_TAG),)
	@BUF_CACHE_DIR=$(VENV)/.buf $(BIN)/buf breaking --against '$(shell git rev-parse --git-common-dir)#tag=$(LAST_TAG)'
endif

.PHONY: lock
lock: $(READY) ## Compile constraints.txt from every pyproject.toml
	@$(PYTHON) tools/lock.py

.PHONY: lock-check
lock-check: $(READY) ## Fail where constraints.txt is not what `make lock` would write
	@$(PYTHON) tools/lock.py --check

##@ Deployment

# The one place that says it is pyproject.toml; `make release-version VERSION=…` changes it everywhere.
DECLARED := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
IMAGE_ROOMS := gateway router billing attestation registry local

.PHONY: images
images: ## Build every image with docker, tagged as deploy/images.env names them; ROOMS_ONLY="router" for one
	@for room in $(or $(ROOMS_ONLY),$(IMAGE_ROOMS)); do \
	  docker build --file deploy/Dockerfile --build-arg ROOM=$$room \
	    --build-arg COMMIT=$$(git rev-parse HEAD) --build-arg VERSION=$(DECLARED) \
	    --tag darkbloom-$$room:$(DECLARED) . || exit 1; \
	done

.PHONY: manifests
manifests: $(READY) ## Print what an environment would be given: make manifests OVERLAY=production
	@$(BIN)/kubectl kustomize deploy/kustomize/overlays/$(or $(OVERLAY),dev)

##@ Releases

.PHONY: release-version
release-version: $(READY) ## Write another version wherever it is said: make release-version VERSION=0.3.0
	@$(PYTHON) -m tools.release version $(VERSION)

.PHONY: release-prepare
release-prepare: $(READY) ## Prepare a release: changelog, version, a place for its notes; VERSION=0.2.0
	@$(PYTHON) -m tools.release prepare $(VERSION)

.PHONY: release
release: $(READY) ## Make wheels, SBOMs, provenance and signatures in dist/VERSION; VERSION=0.2.0 KEY=release.pem
	@$(PYTHON) -m tools.release make $(VERSION) --key $(KEY) $(ARGS)

.PHONY: release-verify
release-verify: $(READY) ## Check a release offline; DIR=dist/0.2.0 KEY=release.pub
	@$(PYTHON) -m tools.release verify $(DIR) --key $(KEY) $(ARGS)

.PHONY: release-images
release-images: $(READY) ## Build, push and sign images, write their digests down; REGISTRY=registry.example/mesh
	@$(PYTHON) -m tools.release images --registry $(REGISTRY) $(ARGS)

##@ Everything

# The tests come last: the end of the output is pytest's own summary. A mesh has as many processes as
# a small machine can bear, so those tests run one by one.
CHECKS := lint types imports deps proto-lint protos-check lock-check

.PHONY: check
check: $(READY) ## Everything that CI runs: the checks, the smallest bench, every test
	@for target in $(CHECKS); do \
	  echo "== $$target"; $(MAKE) $$target || exit 1; \
	done
	@echo "== bench, the smallest run"; $(MAKE) bench ARGS="--quick --no-litellm"
	@echo "== test, rooms"; $(MAKE) test-rooms
	@echo "== test, browser"; $(MAKE) test-browser
	@echo "== test, mesh"; $(MAKE) test-mesh

# Too long for each change; the drills come last, so that the last line is theirs.
.PHONY: nightly
nightly: $(READY) ## What check leaves out for being long: releases side by side, chaos, fuzzing, every drill
	@$(MAKE) compat
	@$(MAKE) chaos-billing
	@$(MAKE) fuzz ARGS="--seconds 60"
	@$(MAKE) drills

.PHONY: clean
clean: ## Remove what make made; the state of `make run` stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(PYTHON):
	@for candidate in $(CANDIDATES); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "install: making $(VENV) with $$($$candidate --version)"; \
	    $$candidate -m venv $(VENV) && exit 0; \
	    echo "install: $$candidate cannot make a venv (on Debian: apt install python3-venv)"; \
	    rm -rf $(VENV); exit 1; \
	  fi; \
	done; echo "install: no Python 3.11 or newer on PATH"; exit 1

# uv takes seconds where pip takes a minute; pip is the way where uv cannot reach the index.
$(READY): requirements-dev.txt constraints.txt $(ROOMS) | $(PYTHON)
	@echo "install: packages (seconds with uv, a minute with pip)"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(PYTHON) -r requirements-dev.txt 2>$(VENV)/uv.log \
	  || { echo "install: uv could not, pip goes on"; \
	       $(PYTHON) -m pip install -qq --disable-pip-version-check -r requirements-dev.txt; }
	@touch $@ && echo "install: done"
