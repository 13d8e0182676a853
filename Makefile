# sidespan: `make help` lists the targets. They need Rust, Python 3 and make, and get the rest.
.DEFAULT_GOAL := help
.PHONY: help demo compose test wasm image push harness sbom dist replay bench bench-export soak worst docs fuzz deny lint toolchain

MODULE := target/sidespan.wasm
BUILT := target/wasm32-wasip1/wasm/sidespan.wasm
# What the compiler uses and every Envoy has; `strip` took the section that would tell wasm-opt.
FEATURES := $(addprefix --enable-,bulk-memory sign-ext nontrapping-float-to-int mutable-globals \
	multivalue reference-types)
# Callbacks that the SDK exports and the filter does not implement: Envoy calls each callback that is
# exported, and a call costs a request 2,000 of Envoy's instructions.
UNUSED := $(addprefix proxy_on_,vm_start done new_connection downstream_data upstream_data \
	downstream_connection_close upstream_connection_close request_body request_trailers \
	response_body response_trailers queue_ready foreign_function grpc_receive grpc_close \
	grpc_receive_initial_metadata grpc_receive_trailing_metadata)
# What wasm-opt gains, against -O3 alone: constants folded into addresses (the lowest kilobyte is the far
# end of the stack, so no address lies there), control flow written anew and unreachable values removed:
# 5 % of the bytes, 2.5 % of the WebAssembly instructions of a request. -Oz in place of -O3 takes off 1.5 %
# of the bytes, and constants in locals 2.4 %; neither shows in Envoy's instructions. V8 needs memory to
# compile large functions, so only small ones are moved into their one caller: 17 MiB less of an Envoy's
# RSS.
OPTIMISE := --low-memory-unused --flatten --rereloop -Oz --gufa -Oz --converge --const-hoisting \
	--reorder-functions --reorder-locals --one-caller-inline-max-function-size=500
# Panic messages hold paths of source files. Without the home directory of whoever builds, the same compiler
# makes the same bytes everywhere. The paths of std become those of a toolchain without its sources.
# SHA-256, which tokens and hashed tags need, is a loop in place of 64 rounds written out: 6 KB less.
RUSTFLAGS_CONFIG = target.wasm32-wasip1.rustflags=[ \
	'--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=registry', \
	'--remap-path-prefix=$(shell rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(RUSTC_COMMIT)', \
	'--cfg=sha2_backend_soft=\"compact\"']
RUSTC_COMMIT = $(shell rustc --version --verbose | sed -n 's/^commit-hash: //p')
comma := ,
space := $(subst ,, )
IMAGE := target/image
IMAGE_FORMAT ?= image
CLI := target/release/sidespan
DIST := target/dist
SBOM := target/sidespan.cdx.json
FUZZ_SECONDS ?= 60
SCENARIOS ?= $(wildcard examples/*/*scenario.yaml tests/scenarios/*.yaml)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: wasm ## run the filter in a real Envoy and print the traces it makes; KEEP=1 leaves it running
	python3 envoy/demo.py $(if $(KEEP),--keep)

compose: ## run the filter among applications in containers, with Jaeger, Zipkin and Grafana; needs Docker
	@docker compose version >/dev/null 2>&1 \
		|| { echo "make compose: expected Docker with its compose plugin, but \`docker compose\` does not run" >&2; exit 1; }
	$(MAKE) wasm
	docker compose -f envoy/compose.yaml up --build

test: lint wasm ## test everything
	cargo test --workspace --locked
	python3 tests/run.py

# rustup gets what rust-toolchain.toml names by itself, unless it is told not to.
toolchain:
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@for component in clippy rustfmt; do \
		rustup component list --installed | grep -q "^$$component" \
			|| rustup component add $$component || exit 1; done
	@rustup target list --installed | grep -qx wasm32-wasip1 || rustup target add wasm32-wasip1

wasm: toolchain ## build target/sidespan.wasm
	cargo build -p sidespan --lib --target wasm32-wasip1 --profile wasm --locked --config "$(RUSTFLAGS_CONFIG)"
	@if [ ! -e $(MODULE) ] || [ $(BUILT) -nt $(MODULE) ]; then \
		echo "wasm-opt makes $(MODULE) of it, which takes a minute or two"; \
		python3 envoy/tools.py wasm-opt $(FEATURES) \
			--remove-exports=$(subst $(space),$(comma),$(UNUSED)) $(OPTIMISE) $(BUILT) -o $(MODULE); fi

image: wasm ## write target/image, an OCI image layout of the module; IMAGE_FORMAT=artifact makes an artifact
	python3 release/image.py $(MODULE) $(IMAGE) --format $(IMAGE_FORMAT)

push: image ## push target/image to REGISTRY=host/name[:tag], with the credentials of Docker's configuration
	$(if $(REGISTRY),,$(error expected REGISTRY=host/name[:tag]))
	python3 release/push.py $(IMAGE) $(REGISTRY)

harness: toolchain ## build target/release/sidespan, which replays scenarios and explains decisions
	cargo build -p sidespan-harness --release --locked

# It writes one file a member of the workspace, beside the member's Cargo.toml. With a time of its own and a
# random number, no two would be the same.
sbom: toolchain ## list the crates in the module in target/sidespan.cdx.json; installs cargo-cyclonedx if it is missing
	@cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked cargo-cyclonedx@0.5.9
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct || date +%s)} cargo cyclonedx --quiet \
		--format json --spec-version 1.5 --target wasm32-wasip1 --override-filename sidespan.cdx
	@rm harness/sidespan.cdx.json
	@mv sidespan.cdx.json $(SBOM)

dist: image harness sbom ## make all that a release has in target/dist; REGISTRY=host/name is where manifests find the image
	python3 release/dist.py $(if $(REGISTRY),--name $(REGISTRY)) --image $(IMAGE) --binary $(CLI) --sbom $(SBOM) \
		$(MODULE) $(DIST)

replay: wasm ## replay SCENARIOS (default: all) against the module
	cargo run -q -p sidespan-harness --locked -- replay $(SCENARIOS)

bench: wasm ## count the WebAssembly instructions of a request
	cargo run -q -p sidespan-harness --locked -- replay --fuel $(wildcard tests/scenarios/cost*.yaml)

bench-export: wasm ## measure what export costs requests, and a span beside one of Envoy's tracer; needs h2load
	python3 tests/bench_export.py

soak: wasm ## send SOAK_REQUESTS (default: 10000000) through the module while everything around it fails
	cargo run -q -p sidespan-harness --locked --example soak

worst: wasm ## search for the requests that cost most for WORST_SECONDS (default: 60)
	cargo run -q -p sidespan-harness --locked --example worst

fuzz: ## fuzz every parser for FUZZ_SECONDS (default: 60) each; gets a nightly toolchain and cargo-fuzz
	@rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz@0.13.2
	@for target in $$(cargo fuzz list --fuzz-dir tests/fuzz); do \
		mkdir -p target/fuzz/corpus/$$target; \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz $$target \
			target/fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=2048 || exit 1; \
	done

deny: ## check licences and sources of all dependencies; installs cargo-deny where it is missing
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny@0.20.2
	cargo deny check bans licenses sources

docs: toolchain ## write docs/configuration.md from the comments in src/config
	WRITE_DOCS=1 cargo test -q -p sidespan --locked config::page

lint: toolchain ## check formatting and lints
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo check --manifest-path tests/fuzz/Cargo.toml --no-default-features --locked \
		--target-dir target/fuzz
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p sidespan --lib --target wasm32-wasip1 --locked -- -D warnings
	cargo clippy -p sidespan --lib --target wasm32-wasip1 --features fuzzing --locked -- -D warnings
