#!/usr/bin/env bash
# Makes the stimuli of the README's picture in the folder it is called from: readable pictures and highest maxima.
set -euo pipefail
proxygrad=${PROXYGRAD:-cargo run --release --}

for preset in readable maximum; do
    $proxygrad maximize --preset $preset --model efficientnet-lite0 --unit logits:954 --output banana-$preset.png
    $proxygrad maximize --preset $preset --model squeezenet1.1 --unit fire5:17 --output fire5-$preset.png
    $proxygrad maximize --preset $preset --model squeezenet1.1 --unit fire8:100@center --output fire8-$preset.png
    $proxygrad maximize --preset $preset --model fashion-resnet8 --unit logits:7 --output sneaker-$preset.png
done
