# relapse: `make` says what there is.

CARGO ?= cargo
# How often `make soak` replays everything.
REPEAT ?= 20
# What `make test` tests, in cargo's words.
TARGET ?= --workspace
# Which kernels `make kernels` boots: bullseye, bookworm, trixie; all without it.
SUITES ?=
# So many trials side by side, at most.
JOBS ?= $(shell expr 6 \* $$(nproc))

# Root may let a run write nf_conntrack_max, one number for the whole machine: journalled before,
# set back after. Without it that scenario is skipped, or reduced, and says so.
ROOT := $(filter 0,$(shell id -u))
CONSENT := $(if $(ROOT),RELAPSE_ALLOW_HOST_WRITES=1)
WRITES := $(if $(ROOT),--allow-host-writes)
NOTICE := $(if $(ROOT),as root: nf_conntrack_max of this machine is written for one incident and set back)

.DEFAULT_GOAL := help
.PHONY: help run test soak kind nightly kernels image fmt lint generate prerequisites

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

# Without the kind backend, which is most of what there is to build.
run: prerequisites ## replay every incident and every benign twin, and show who detected what
	@$(if $(NOTICE),echo "$(NOTICE)")
	@echo "builds relapse first (some minutes, once), then replays every trial"
	$(CARGO) run --release --package relapse --no-default-features -- run $(WRITES)

test: prerequisites ## every test but the hours of soak
	@$(if $(NOTICE),echo "$(NOTICE)")
	$(CONSENT) $(CARGO) test $(TARGET) --no-fail-fast

soak: prerequisites ## hours of it: kill runs at every instant, replay everything REPEAT times
	$(CONSENT) $(CARGO) test --package relapse --test killed -- --include-ignored
	$(CARGO) run --release --package relapse -- run --repeat $(REPEAT) --jobs $(JOBS) $(WRITES)

kind: prerequisites ## what real clusters need, beside Docker: kind and a node image
	@bash scripts/kind.sh

# As root, since only root may enter the nodes' namespaces; built by whoever calls it.
nightly: kind ## replay everything on both backends; any missed or late detection fails it
	$(CARGO) build --release --package relapse
	@echo "as root: nf_conntrack_max of this machine is written for one incident and set back"
	$(if $(ROOT),,sudo )$${CARGO_TARGET_DIR:-target}/release/relapse run --backend all --require netns,kind --allow-host-writes

image: prerequisites ## a container image that replays the carried incidents
	@bash scripts/image.sh

kernels: prerequisites ## replay incidents on the kernels of Debian 11, 12 and 13, under qemu
	@bash scripts/kernels.sh $(SUITES)

fmt: ## format the code
	git ls-files '*.rs' | xargs rustfmt --edition 2024

lint: ## formatting and lints, as CI sees them
	git ls-files '*.rs' | xargs rustfmt --check --edition 2024
	$(CARGO) clippy --workspace --all-targets -- -D warnings

generate: prerequisites ## write the files that are made from code
	$(CARGO) run --quiet --package relapse -- schema > scenarios/schema.json.new
	mv scenarios/schema.json.new scenarios/schema.json

prerequisites:
	@sh scripts/prerequisites.sh
