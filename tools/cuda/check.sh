#!/usr/bin/env bash
# Checks and times proxygrad on this machine's GPU in one run: correctness against f64 on the CPU for every catalog network
# and every gate, in f32, TF32 and bf16; one stimulus made by the program itself; then speed compared with PyTorch.
#
#   check.sh [DEVICE]        default cuda:0; `reference` runs the same tensor code on the CPU
#
# Expects `proxygrad` and `device_check` in its own folder, as tools/cuda/build.sh bundles them, or in the folder BIN. Needs
# neither Rust nor internet, but a driver 580 or later, and cuBLAS and cuRAND of CUDA 13: from a toolkit, or from PyTorch for
# CUDA 13, which is searched. Speed is compared if Python has torch (PYTHON names another interpreter).
#
# BATCHES    batch sizes to time, default 1,16,64
# NETWORKS   networks to check, separated by commas; default all
# SECONDS_EACH  time for each measurement of speed, default 3
# RIVAL_FLAGS   more flags for rival.py
#
# Ends with status 0 when everything was within its limits. Everything printed also goes to check-DEVICE.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
device=${1:-cuda:0}
bin=${BIN:-$here}
python=${PYTHON:-python3}
batches=${BATCHES:-1,16,64}
seconds=${SECONDS_EACH:-3}
log=check-${device//[:+]/-}.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $device in
    cuda:*)
        precisions='f32 tf32 bf16' plain_device=$device rival=cuda:${device#cuda:}
        # PyTorch's packages keep the libraries outside the loader's path.
        packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2> /dev/null || true)
        for folder in "$packages"/nvidia/cu13/lib /usr/local/cuda/lib64; do
            if [ -d "$folder" ]; then export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder; fi
        done
        ;;
    reference) precisions='f32 tf32 bf16' plain_device=cpu rival=cpu ;;
    *) precisions=f32 plain_device=$device rival=cpu ;;
esac

failed=0
# Runs a step; the others run even when it fails.
try() {
    "$@" || { echo "FAILED: $*"; failed=1; }
}
suffix() {
    if [ "$1" != f32 ]; then echo "+$1"; fi
}

everything() {
    echo "== machine"
    uname -srm
    case $device in cuda:*) nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true ;; esac

    echo "== correctness"
    for precision in $precisions; do
        try "$bin/device_check" --device "$device$(suffix "$precision")" --batches '' \
            ${NETWORKS:+--networks "$NETWORKS"}
    done

    echo "== the program: one stimulus on the CPU and on the device"
    for where in cpu "$plain_device"; do
        # The scores come from two different PNGs; what they score is checked above.
        try "$bin/proxygrad" maximize --model fashion-resnet8 --unit logits:8 --steps 64 --device "$where" \
            --data-dir "$work/data" --output "$work/$where.png"
    done

    echo "== speed: ResNet-18, 224 pixels, milliseconds for one iteration of the whole batch"
    for precision in $precisions; do
        try "$bin/device_check" --device "$device$(suffix "$precision")" --networks '' --batches "$batches" \
            --seconds "$seconds"
        if "$python" -c 'import torch' 2> /dev/null; then
            if [ "$rival" != cpu ] || [ "$precision" = f32 ]; then
                # shellcheck disable=SC2086  # the flags are words
                try "$python" "$here/rival.py" --device "$rival" --precision "$precision" --batches "$batches" \
                    --seconds "$seconds" ${RIVAL_FLAGS:-}
            fi
        fi
    done > "$work/speed"
    awk -F '\t' '
        $1 == "speed" { if (!($2 in seen)) { seen[$2]; names[++n] = $2 }
                        if (!($3 in sizes)) { sizes[$3]; batch[++b] = $3 }
                        cell[$2, $3] = $4; next }
        { print }
        END { printf "%-34s", "batch"; for (j = 1; j <= b; j++) printf " %10s", batch[j]; print ""
              for (i = 1; i <= n; i++) { printf "%-34s", names[i]
                  for (j = 1; j <= b; j++) printf " %10s", cell[names[i], batch[j]]; print "" } }' "$work/speed"
    if [ "$failed" = 0 ]; then echo "== passed"; else echo "== FAILED"; fi
    return "$failed"
}

everything 2>&1 | tee "$log"
