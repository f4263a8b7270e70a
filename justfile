# Everyday commands. `just` lists them; each line can also be typed without it.
# Install: `cargo install just`, or `pip install rust-just`.

# Python with `tests/verify/requirements.txt` (and what a script names at its top).
python := env("PYTHON", "python3")

[private]
default:
    @just --list

# Serve on http://127.0.0.1:8080
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

# Everything that CI checks
check:
    .ci/run

# The quick part of `check`: layering, format, lints
lint:
    tools/architecture/imports.py --check
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Tests of the library whose names contain FILTER
test-library FILTER="":
    cargo test --package proxygrad {{FILTER}}

# Tests of the server and the command line whose names contain FILTER
test-server FILTER="":
    cargo test --package proxygrad-server {{FILTER}}

# Licences, banned crates and sources; unused dependencies
dependencies:
    .ci/dependencies

# Import cycles, upward imports and arrows between rooms
imports *ARGS:
    tools/architecture/imports.py {{ARGS}}

# API documentation of both packages
doc:
    cargo doc --no-deps --open

# Write openapi/openapi.json again after a change of the API
openapi:
    cargo build
    target/debug/proxygrad openapi > openapi/openapi.json

# Write the snapshots of API documents again
snapshots:
    INSTA_UPDATE=always cargo test --test suite snapshots

# Write the ONNX fixtures again (needs onnx, onnxruntime, numpy)
fixtures:
    {{python}} crates/proxygrad/tests/fixtures/onnx/generate.py

# Benchmarks of one iteration whose names contain FILTER
bench FILTER="":
    cargo bench --bench iteration -- --quick {{FILTER}}

# Comparison with PyTorch (needs torch)
bench-pytorch *ARGS:
    cargo build --release --example iterate
    {{python}} benches/compare.py {{ARGS}}

# A small study of gates on random networks, in target/study
study *ARGS:
    cargo run --release -- study --out target/study --models fashion-resnet8 --toys 32 {{ARGS}}

# Peak memory of runs against their estimates (Linux)
memory:
    cargo build
    {{python}} tools/memory/measure.py target/debug/proxygrad

# Scores of small networks against ONNX Runtime (needs tests/verify/requirements.txt)
verify:
    cargo build
    {{python}} tests/verify/selftest.py target/debug/proxygrad
