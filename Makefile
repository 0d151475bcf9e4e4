# The doors of the house: people and continuous integration (.ci/run) come through the same ones.

# Where nobody edits Cargo.toml, a Cargo.lock that does not fit it is an error.
LOCKED := $(if $(CI),--locked)

.DEFAULT_GOAL := help
.PHONY: help demo test lint crds reference bench image

help: ## show this list
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## a real control plane and a simulated AWS on this machine (KEEP=1 leaves them running)
	@.ci/need cargo go cc
	cargo build $(LOCKED) --features simulator --bin ssm-session-operator --example demo
	@cargo run $(LOCKED) --quiet --features simulator --example demo

test: ## all tests, with a real kube-apiserver, etcd and helm (built once: about 11 minutes)
	@.ci/need cargo go cc promtool
	cargo test $(LOCKED) --all-features

lint: ## format, lints, documentation, and the dependencies' licences and sources
	@.ci/need cargo cargo-fmt cargo-clippy gofmt cc
	cargo fmt --check
	@unformatted=$$(gofmt -l tests/control-plane) && test -z "$$unformatted" || \
		{ echo "run gofmt -w on: $$unformatted" >&2; exit 1; }
	cargo clippy $(LOCKED) --all-targets --all-features -- -D warnings
	cargo clippy $(LOCKED) -- -D warnings # as the image is built: without the simulator
	.ci/chart-readme --check
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --no-deps --all-features
	.ci/deny

crds: ## write the CustomResourceDefinitions to crds/ and into the chart
	@.ci/need cargo cc
	cargo run $(LOCKED) --quiet -- crds --dir crds
	cp crds/*.yaml charts/ssm-session-operator/files/crds/

reference: ## write docs/reference from the code
	@.ci/need cargo cc
	WRITE_REFERENCE=1 cargo test $(LOCKED) --quiet --test reference

bench: ## speed and memory: protocol, relay, and the whole process (6 minutes; the first build takes longer)
	@.ci/need cargo go cc
	cargo bench $(LOCKED) --features simulator

image: ## the container image, as ssm-session-operator:dev
	@.ci/need docker
	DOCKER_BUILDKIT=1 docker build --tag ssm-session-operator:dev .
