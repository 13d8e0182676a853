# sidespan: `make help` lists the targets. They need Rust, Python 3 and make, and get the rest.
.DEFAULT_GOAL := help
.PHONY: help demo test wasm replay bench bench-export soak fuzz deny lint toolchain

MODULE := target/sidespan.wasm
BUILT := target/wasm32-wasip1/wasm/sidespan.wasm
# What the compiler uses and every Envoy has; strip took the section that would tell wasm-opt.
FEATURES := $(addprefix --enable-,bulk-memory sign-ext nontrapping-float-to-int mutable-globals \
	multivalue reference-types)
# The same for the compiler, but for copies of memory, which src/plugin/copies.rs makes.
TARGET := -Ctarget-cpu=mvp -Ctarget-feature=+sign-ext,+nontrapping-fptoint,+mutable-globals
TARGET := $(TARGET),+multivalue,+reference-types
# Most of what there is to gain comes from -Oz; functions that differ in a constant are 1.5 KB more,
# control flow written anew 2 KB, and constants folded into addresses another 2 KB and 3 % of a
# request: the lowest kilobyte is the far end of the stack, so that no address lies there. Constants
# that are written once a function, and small numbers for what is called often, are 3.7 KB.
SHRINK := --low-memory-unused --remove-exports=memcpy --flatten --rereloop --merge-similar-functions \
	-Oz --gufa -Oz --converge --const-hoisting --reorder-functions --reorder-locals
# The module brings a standard library of its own: one whose panics trap and say nothing, which takes
# 35 KB less than the one that rustup has. Cargo calls that unstable; rust-toolchain.toml pins it.
OWN_STD := -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
# What is small of it runs for every request. Here, since Cargo.toml knows no such packages.
OWN_STD += $(foreach package,core compiler_builtins,\
	--config profile.wasm.package.$(package).opt-level=3)
FUZZ_SECONDS ?= 60
SCENARIOS ?= $(wildcard examples/*/*scenario.yaml tests/scenarios/*.yaml)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: wasm ## run the filter in a real Envoy and print the traces it makes; KEEP=1 leaves it running
	python3 envoy/demo.py $(if $(KEEP),--keep)

test: lint wasm ## test everything
	cargo test --workspace --locked
	python3 tests/run.py

# rustup gets what rust-toolchain.toml names by itself, unless it is told not to.
toolchain:
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@for component in clippy rustfmt rust-src; do \
		rustup component list --installed | grep -q "^$$component" \
			|| rustup component add $$component || exit 1; done
	@rustup target list --installed | grep -qx wasm32-wasip1 || rustup target add wasm32-wasip1

wasm: toolchain ## build target/sidespan.wasm
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zunstable-options -Cpanic=immediate-abort $(TARGET)" \
		cargo build -p sidespan --lib --target wasm32-wasip1 --profile wasm --locked $(OWN_STD)
	@if [ ! -e $(MODULE) ] || [ $(BUILT) -nt $(MODULE) ]; then \
		python3 envoy/tools.py wasm-opt $(SHRINK) $(FEATURES) $(BUILT) -o $(MODULE); fi

replay: wasm ## replay SCENARIOS (default: all) against the module
	cargo run -q -p sidespan-harness --locked -- replay $(SCENARIOS)

bench: wasm ## count the WebAssembly instructions of a request
	cargo run -q -p sidespan-harness --locked -- replay --fuel $(wildcard tests/scenarios/cost*.yaml)

bench-export: wasm ## measure what export costs requests, and a span beside one of Envoy's tracer; needs h2load
	python3 tests/bench_export.py

soak: wasm ## send SOAK_REQUESTS (default: 10000000) through the module while everything around it fails
	cargo run -q -p sidespan-harness --locked --example soak

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

lint: toolchain ## check formatting and lints
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	cargo check --manifest-path tests/fuzz/Cargo.toml --no-default-features --locked \
		--target-dir target/fuzz
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p sidespan --lib --target wasm32-wasip1 --locked -- -D warnings
