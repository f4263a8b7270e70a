#!/usr/bin/env bash
# Makes the stimuli of the README's picture in the folder it is called from.
set -euo pipefail
proxygrad=${PROXYGRAD:-cargo run --release --}

$proxygrad maximize --model efficientnet-lite0 --unit logits:954 --steps 192 --output banana.png \
    --transform jitter:16 --transform rotate:10@0.5 --transform scale:0.9,1.1
$proxygrad maximize --model squeezenet1.1 --unit fire5:17 --steps 96 --output fire5.png --transform jitter:8
$proxygrad maximize --model squeezenet1.1 --unit fire8:100@center --steps 192 --output fire8.png --transform jitter:4
$proxygrad maximize --model fashion-resnet8 --unit logits:7 --output sneaker.png --transform jitter:2
