# Every target is a thin wrapper: `pulumi up`, `preview`, `destroy` and `stack output` work as usual.
STACK ?= dev
# Arguments for pytest: make unit ARGS="-k proxy"
ARGS ?=

RUN := scripts/run

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## Install what is missing and bring the platform up (STACK=dev)
	@$(RUN) up --stack $(STACK)

.PHONY: preview
preview: ## Show what `make up` would change, in words (STACK="staging prod", STACK=all)
	@$(RUN) preview --stack "$(STACK)"

.PHONY: drift
drift: ## Show what was changed by hand since the last `make up`
	@$(RUN) drift --stack "$(STACK)"

.PHONY: estimate
estimate: ## Show what the platform will need of its host
	@$(RUN) estimate --stack "$(STACK)"

.PHONY: down
down: ## Remove the platform
	@$(RUN) up --command down --stack $(STACK)

.PHONY: urls
urls: ## Show the URLs and where the passwords are
	@$(RUN) urls --stack $(STACK)

.PHONY: demo
demo: ## Run the demo's pipelines and show what they did
	@$(RUN) demo --stack $(STACK)

.PHONY: setup
setup: ## Install what is missing, start nothing
	@$(RUN) setup --stack $(STACK)

.PHONY: test
test: ## Run every check: lint, types, unit and integration tests
	@$(RUN) check all $(ARGS)

.PHONY: lint
lint: ## Check format, style, types, shell scripts and workflows
	@$(RUN) check lint

.PHONY: unit
unit: ## Run the unit tests (no Docker)
	@$(RUN) check unit $(ARGS)

.PHONY: integration
integration: ## Run the tests on real containers
	@$(RUN) check integration $(ARGS)

.PHONY: demo-test
demo-test: ## Run the end-to-end tests of the demo's pipelines (half an hour; not part of `make test`)
	@$(RUN) check demo $(ARGS)

.PHONY: format
format: ## Format the Python code
	@$(RUN) check format

.PHONY: schema
schema: ## Write the JSON Schema of the settings into configs/
	@.venv/bin/python -m components.schema

.PHONY: digests
digests: ## Ask the registries for the digests of the official images
	@$(RUN) digests

.PHONY: lock
lock: ## Pin the Python packages anew from requirements*.in
	@$(RUN) lock

.PHONY: bench
bench: ## Measure `make up` and compare with docker compose
	@$(RUN) bench $(ARGS)
