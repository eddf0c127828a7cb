# The one entrance: `make help` lists what there is.

SHELL := /bin/bash
GOARCH ?= $(shell go env GOARCH)
# The version comes from git, in the form that deb and rpm order rightly: 1.2.0 for the
# tag v1.2.0, 1.2.0+7.gabc1234 for seven commits later.
VERSION ?= $(shell packaging/version)
LDFLAGS := -s -w -X github.com/wayfarer-vpn/wayfarer/internal/cli.version=$(VERSION)
GOBUILD := CGO_ENABLED=0 GOOS=linux GOARCH=$(GOARCH) go build -trimpath -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := build
.PHONY: build test test-kernel demo bench lint packages fuzz clean help

build: ## bin/vpn-server and bin/vpn-client, static
	$(GOBUILD) -o bin/ ./cmd/vpn-server ./cmd/vpn-client

test: ## everything: format, vet, staticcheck, Go tests, namespaces, packages (as root)
	@test/setup.sh test kernel
	@test/all.sh

test-kernel: ## the kernel's data path, in a virtual machine with IPsec (as root; WF_KERNEL=qemu for a distribution's kernel)
	@test/setup.sh kernel
	@test/all.sh kernel

demo: ## a gateway and a laptop behind a NAT, in network namespaces (as root)
	@test/setup.sh demo
	@$(MAKE) -s build
	@test/demo.sh

bench: build ## the benchmarks, 20 minutes on an idle machine; writes docs/performance.* (as root)
	@mkdir -p .cache
	@go test -run '^$$' -bench . -benchmem ./... | tee .cache/gobench.txt
	@test/bench.sh
	@go run ./test/bench/dataplane -fresh -gobench .cache/gobench.txt -results docs/performance.json -docs docs

lint: ## format, vet and staticcheck
	@test/all.sh format vet staticcheck

packages: ## .deb and .rpm of both programs in dist/, for GOARCH
	@test/setup.sh packages
	@packaging/build "$(VERSION)" "$(GOARCH)"

fuzz: ## every fuzz target for FUZZTIME (1m); see test/fuzz.sh for more settings
	@test/fuzz.sh

clean: ## what was built; downloads in .cache stay
	rm -rf bin dist .cache/stage

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Tools are pinned in a module of their own.
.cache/tools/%: tools/go.mod tools/go.sum
	@mkdir -p .cache/tools
	@echo "building the tools pinned in tools/go.mod"
	@cd tools && go build -o ../.cache/tools/ tool
	@touch .cache/tools/*
