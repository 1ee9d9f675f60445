# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The multus-vpc authors
#
# An index: `make help` lists it. The work is in scripts/ and in the Go programs under test/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# The programs of the suite that exist so far: folders with a main.go.
DOORS := $(patsubst %/main.go,./%,$(wildcard $(addsuffix /main.go, \
	plugins/* agent initcontainer sidecar injector vpcctl vpclab)))
STATIC := CGO_ENABLED=0 go build -trimpath -ldflags="-s -w"
# Plugins start with one scheduler thread: docs/adr/0030.
PLUGIN := CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -E multus_vpc_entry"
SUITE = MULTUS_VPC_BIN="$(CURDIR)/bin" MULTUS_VPC_PEERS="$$(scripts/tools.sh test/peers)" \
	MULTUS_VPC_STACK="$$(scripts/tools.sh test/stack)" MULTUS_VPC_HELM="$$(scripts/tools.sh test/chart/helm)" .cache/suite

##@ Everyday

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-demo build ## Watch two workers, their ENIs and their pods: the README's story, on this machine
	@scripts/demo.sh

.PHONY: demo-workers
demo-workers: ## Watch workers get their ENIs: our stacks, the real function, and an Auto Scaling group
	@mkdir -p bin
	@go run ./lambda/pack -o dist -arch "$$(go env GOARCH)"
	@$(STATIC) -o bin/ ./vpclab
	@bin/vpclab workers

.PHONY: build
build: ## Build static binaries into bin/
	@mkdir -p bin
	@$(STATIC) -o bin/ $(filter-out ./plugins/%,$(DOORS))
	@$(PLUGIN) -o bin/ $(filter ./plugins/%,$(DOORS))

.PHONY: lambda
lambda: ## Pack the function for both architectures into dist/: the same sources give the same bytes
	@go run ./lambda/pack -o dist

.PHONY: images
images: ## Build the image for amd64 and arm64 with docker, podman or buildah (IMAGE, PUSH=yes)
	@scripts/images.sh

.PHONY: test check
test: setup-test build lint test-tools mutants ## All checks: lint, tests here, tests that need ipvlan, mutants
	@$(SUITE)
check: test ## The same as test

##@ Parts of test

.PHONY: lint
lint: ## gofumpt, vet, shadow, errorlint, staticcheck
	@scripts/lint.sh

.PHONY: test-unit
test-unit: build test-tools ## Tests that run on this host, with -race -shuffle=on
	@$(SUITE) host

.PHONY: test-vm
test-vm: build test-tools ## Tests that need ipvlan, in namespaces or in a virtual machine
	@$(SUITE) ipvlan

.PHONY: mutants
mutants: build test-tools ## Break the agent on purpose, one fault at a time: the demo must notice each
	@.cache/mutants

##@ More

.PHONY: bench
bench: FORMAT ?= table
bench: build test-tools ## The plugins beside those of others: times, failures, EC2 calls, memory; then the Go benchmarks (FORMAT=json, markdown: without)
	@$(STATIC) -o .cache/ ./test/bench ./test/bench/idle
	@MULTUS_VPC_BIN="$(CURDIR)/bin" MULTUS_VPC_PEERS="$$(scripts/tools.sh test/peers)" \
		MULTUS_VPC_STACK="$$(scripts/tools.sh test/stack)" .cache/bench -vm "$(CURDIR)/.cache/vm" -o $(FORMAT)
	@[[ $(FORMAT) != table ]] || $(MAKE) --no-print-directory bench-floating bench-lambda
	@[[ $(FORMAT) != table ]] || go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-floating
bench-floating: build test-tools ## Part of bench: how long a floating address is away when it moves, and what a sidecar costs
	@CGO_ENABLED=0 go test -c -tags ipvlan -o .cache/sync.test ./test/sync
	@set -o pipefail; MULTUS_VPC_ROUNDS=25 MULTUS_VPC_BIN="$(CURDIR)/bin" MULTUS_VPC_PEERS="$$(scripts/tools.sh test/peers)" \
		MULTUS_VPC_STACK="$$(scripts/tools.sh test/stack)" .cache/vm -cpus 2 -memory 3072 -ship "$(CURDIR)/bin" -ship "$$(scripts/tools.sh test/peers)" \
		-ship "$$(scripts/tools.sh test/stack)" .cache/sync.test -test.v -test.run '^(TestFloatingAddresses|TestCostOfASidecar)$$/moves' \
		| sed -n 's/^ *[a-z]*_test\.go:[0-9]*: //p; /^--- /p; /^FAIL/p'

.PHONY: bench-lambda
bench-lambda: lambda ## Part of bench: what the function costs: size, start, events, memory
	@set -o pipefail; MULTUS_VPC_ROUNDS=25 go test -count=1 -v -run '^TestCost$$' ./test/lambda \
		| sed -n 's/^ *[a-z]*_test\.go:[0-9]*: //p; /^--- /p; /^FAIL/p'

.PHONY: conformance
conformance: build test-tools ## Plugins held to the CNI specification: writes docs/conformance.md (SUBJECT=file.json: prints what came of yours)
	@$(STATIC) -o .cache/ ./test/conformance
	@export MULTUS_VPC_BIN="$(CURDIR)/bin" MULTUS_VPC_PEERS="$$(scripts/tools.sh test/peers)" && SUBJECT="$(SUBJECT)" scripts/conformance.sh

.PHONY: simulate
simulate: WORKERS ?= 50,500,5000
simulate: FULL ?= 50,90,99
simulate: FORMAT ?= table
simulate: ## Fleets of agents on virtual time: EC2 calls and time per worker (WORKERS, FULL, FORMAT=json)
	@mkdir -p .cache
	@CGO_ENABLED=0 go test -c -o .cache/simulate ./test/simulate
	@.cache/simulate -test.run '^TestSimulate$$' -test.v -test.timeout 0 -simulate.o $(FORMAT) \
		-simulate.workers $(WORKERS) -simulate.full $(FULL)

.PHONY: chaos
chaos: CHAOS_KILLS ?= 500
chaos: build ## Kill CHAOS_KILLS processes of four workers, and let all else go wrong (CHAOS_SEED repeats a run)
	@mkdir -p .cache/chaos
	@CGO_ENABLED=0 go test -c -o .cache/chaos.test ./test/chaos
	@MULTUS_VPC_BIN="$(CURDIR)/bin" CHAOS_KILLS="$(CHAOS_KILLS)" CHAOS_SEED="$(CHAOS_SEED)" CHAOS_KEEP="$(CURDIR)/.cache/chaos" \
		.cache/chaos.test -test.run '^TestChaos$$' -test.v -test.timeout 0

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s)
	@scripts/fuzz.sh

.PHONY: fresh
fresh: ## What a newcomer sees: new clone, empty caches, the demo twice, with times
	@scripts/fresh.sh

.PHONY: setup
setup: setup-test ## Install what the demo and the tests need (Debian, as root), or say what is missing

.PHONY: clean
clean: ## Remove what was built here (downloads stay in ~/.cache/multus-vpc)
	@rm -rf bin dist .cache

.PHONY: setup-demo setup-test test-tools
setup-demo:
	@scripts/setup.sh demo
setup-test:
	@scripts/setup.sh test
test-tools:
	@mkdir -p .cache
	@CGO_ENABLED=0 go build -o .cache/ ./test/vm ./test/suite $(patsubst %/main.go,./%,$(wildcard test/mutants/main.go))
