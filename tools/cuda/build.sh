#!/usr/bin/env bash
# Builds proxygrad for NVIDIA GPUs on a machine that has neither a GPU nor the CUDA toolkit.
#
#   tools/cuda/build.sh [FOLDER]
#
# FOLDER (default: target/cuda) gets the toolkit's parts and FOLDER/bundle: the program and all that tools/cuda/check.sh
# needs, to be carried to a machine with a card, without Rust and without internet.
# Needed here: Rust, a C++ compiler, Python 3 with pip. The toolkit comes through pip's default index.
#
# CUDA_COMPUTE_CAP   compute capability of the cards, without its dot (default 90): 80 for A100, 89 for L4, 90 for H100.
#                    Older cards are not served; newer ones are, for the driver compiles the kernels when it loads them.
# CARGO_FLAGS        more flags for cargo, such as -j1.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "${1:-target/cuda}" && cd "${1:-target/cuda}" && pwd)
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$folder/cargo}

# 13.0, because a driver refuses PTX of a toolkit newer than itself: 13.0 asks for driver 580 or later.
site=$folder/site
export CUDA_HOME=$site/nvidia/cu13
if [ ! -e "$folder/toolkit.done" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target "$site" \
        nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85 \
        nvidia-cuda-runtime==13.0.96 nvidia-cuda-nvrtc==13.0.88 'nvidia-cublas<13.2' nvidia-curand==10.4.0.35
    # The packages hold only versioned libraries; the linker asks for plain names in lib64.
    ln -sfn lib "$CUDA_HOME/lib64"
    for library in "$CUDA_HOME"/lib/lib*.so.*; do
        name=$(basename "$library")
        ln -sf "$name" "$CUDA_HOME/lib/${name%%.so.*}.so"
    done
    # The driver's library belongs to the driver. To link, a stub is enough: every name of the header, and each answers
    # CUDA_ERROR_STUB_LIBRARY.
    mkdir -p "$CUDA_HOME/lib/stubs"
    grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$CUDA_HOME/include/cuda.h" | sort -u | sed 's/.*/int &(void) { return 34; }/' \
        > "$folder/libcuda.c"
    cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$CUDA_HOME/lib/stubs/libcuda.so" "$folder/libcuda.c"
    ln -sf libcuda.so "$CUDA_HOME/lib/stubs/libcuda.so.1"
    chmod +x "$CUDA_HOME"/bin/* "$CUDA_HOME"/nvvm/bin/*
    touch "$folder/toolkit.done"
fi
export PATH=$CUDA_HOME/bin:$PATH

# shellcheck disable=SC2086  # the flags are words
cargo build --release --locked --features cuda --bin proxygrad --example device_check ${CARGO_FLAGS:-}

bundle=$folder/bundle
mkdir -p "$bundle"
for program in proxygrad examples/device_check; do
    strip -o "$bundle/$(basename $program)" "$CARGO_TARGET_DIR/release/$program"
done
cp tools/cuda/check.sh tools/cuda/rival.py "$bundle"
ls -l --block-size=1 "$bundle"
echo "libraries of CUDA that a card's machine must have:"
objdump --private-headers "$bundle/proxygrad" | awk '/NEEDED.*lib(cu|nv)/ { print "  " $2 }'
