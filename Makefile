# `make` lists the targets.

CARGO ?= cargo
# Repetitions of `make soak`.
REPEAT ?= 20
# Cargo arguments that select what `make test` tests.
TARGET ?= --workspace
# Kernels for `make kernels`: bullseye, bookworm, trixie. Default: all.
SUITES ?=
# Scenarios for `make record`. Default: all.
SCENARIOS ?=
# Maximum number of concurrent trials.
JOBS ?= $(shell expr 6 \* $$(nproc))

# As root, runs may write nf_conntrack_max, a machine-wide setting: recorded in a journal first,
# restored afterwards. Otherwise that scenario is skipped or reduced, and the run reports it.
ROOT := $(filter 0,$(shell id -u))
CONSENT := $(if $(ROOT),RELAPSE_ALLOW_HOST_WRITES=1)
WRITES := $(if $(ROOT),--allow-host-writes)
NOTICE := $(if $(ROOT),as root: nf_conntrack_max of this machine is written for one incident and restored)

.DEFAULT_GOAL := help
.PHONY: help run test referee speed soak kind nightly kernels image record record-kind scoreboard fmt lint generate prerequisites

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-10s %s\n", $$1, $$2 }'

# Without the kind backend, which takes most of the build time.
run: prerequisites ## replay every incident and every benign twin, and show which detector found what
	@$(if $(NOTICE),echo "$(NOTICE)")
	@echo "building relapse first (once, takes some minutes), then replaying every trial"
	$(CARGO) run --release --package relapse --no-default-features -- run $(WRITES)

test: prerequisites ## run every test except the soak test
	@$(if $(NOTICE),echo "$(NOTICE)")
	$(CONSENT) $(CARGO) test --no-fail-fast $(TARGET)

referee: prerequisites ## let a real Prometheus decide about 200 rules, live, and compare (three minutes)
	$(CARGO) test --package relapse-alerts referee -- --include-ignored --nocapture

speed: prerequisites ## how long relapse takes to decide about 30, 300 and 3,000 rules
	$(CARGO) test --release --package relapse-alerts speed -- --ignored --nocapture

soak: prerequisites ## run for hours: kill runs at random instants, replay everything REPEAT times
	$(CONSENT) $(CARGO) test --package relapse --test killed -- --include-ignored
	$(CARGO) run --release --package relapse -- run --repeat $(REPEAT) --jobs $(JOBS) $(WRITES)

kind: prerequisites ## set up real clusters: kind and a node image (needs Docker)
	@bash scripts/kind.sh

# Runs as root, because only root may enter the nodes' namespaces; built as the calling user.
nightly: kind ## replay everything on both backends; any missed or late detection fails it
	$(CARGO) build --release --package relapse
	@echo "as root: nf_conntrack_max of this machine is written for one incident and restored"
	$(if $(ROOT),,sudo )$${CARGO_TARGET_DIR:-target}/release/relapse run --nightly --backend all --require netns,kind --allow-host-writes

image: prerequisites ## a container image that replays the carried incidents
	@bash scripts/image.sh

kernels: prerequisites ## replay incidents on the kernels of Debian 11, 12 and 13, under qemu
	@bash scripts/kernels.sh $(SUITES)

# Recordings last four minutes and mostly wait, so that many run at once; those that write nf_conntrack_max, one after
# the other. SCENARIOS: those to record again, such as the ones that `cargo test -p relapse-alerts` calls older.
record: prerequisites ## record what Prometheus exporters export in every trial (an hour), for `relapse alerts`
	@bash scripts/prometheus.sh
	@$(if $(NOTICE),echo "$(NOTICE)")
	$(CARGO) build --release --package relapse --no-default-features
	$${CARGO_TARGET_DIR:-target}/release/relapse run $(SCENARIOS) --jobs $(JOBS) $(WRITES) --record-series alerts/recordings

# The incidents whose base scenarios `make record-kind` records.
ON_KIND ?= mss-clamp-raised conntrack-cap-reset coredns-single-replica-loss policy-route-lost database-slow \
	dns-record-wrong snat-port-collision

record-kind: prerequisites ## record the same on a real cluster, incidents alone (half an hour; needs root and `make kind`)
	@bash scripts/prometheus.sh
	$(CARGO) build --release --package relapse
	$${CARGO_TARGET_DIR:-target}/release/relapse run $(ON_KIND) --only incident --backend kind $(WRITES) \
		--record-series alerts/recordings

scoreboard: prerequisites ## docs/scoreboard.md: what the rules of a folder see (RULES=folder)
	$(CARGO) build --release --package relapse --no-default-features
	@bash scripts/scoreboard.sh $(RULES)

fmt: ## format the code
	git ls-files '*.rs' | xargs rustfmt --edition 2024

lint: ## check formatting and lints, as in CI
	git ls-files '*.rs' | xargs rustfmt --check --edition 2024
	$(CARGO) clippy --workspace --all-targets -- -D warnings

generate: prerequisites ## regenerate the files that are generated from code
	$(CARGO) run --quiet --package relapse -- schema > scenarios/schema.json.new
	mv scenarios/schema.json.new scenarios/schema.json

prerequisites:
	@sh scripts/prerequisites.sh
