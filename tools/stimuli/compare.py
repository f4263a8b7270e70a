#!/usr/bin/env python3
"""Checks that two builds of the program make the same stimuli, byte for byte: run it before and after a refactoring.

    python3 tools/stimuli/compare.py OLD NEW [--data-dir DIR]

OLD and NEW are two builds of `proxygrad`. The requests below cover every gate, parameterization, transform, optimizer,
regularizer and start. With a data directory that holds squeezenet1.1 (`proxygrad models pull squeezenet1.1`), every other
request runs on that network. Needs only Python's standard library. Exit status 0: all the same.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

SMALL = "fashion-resnet8"
LARGE = "squeezenet1.1"

# Settings, and the objectives on the small and on the large network.
REQUESTS = [
    ({}, "logits:8", "logits:954"),
    ({"preset": "fast"}, "layer2/Relu_1:3", "logits:1"),
    ({"preset": "maximum"}, "logits:1", "logits:2"),
    ({"preset": "best"}, "layer3/Relu_1:5@center", "logits:3"),
    ({"preset": "lucid"}, "logits:2", "logits:4"),
    ({"preset": "maco"}, "logits:3", "logits:5"),
    ({"preset": "proxygrad-paper"}, "logits:4", "logits:6"),
    ({"preset": "maximum", "gate": "plain", "optimizer": "momentum"}, "layer1/Relu_1:3@max", "logits:7"),
    ({"preset": "maximum", "gate": {"kind": "decoupled", "slope": 0.3, "anneal": 0.6, "polish": 0.1}},
     "layer2/Relu_1:4@top0.1", "logits:8"),
    ({"preset": "maximum", "gate": {"kind": "true-proxy", "slope": 0.1}, "optimizer": "nadam"}, "logits:5", "logits:9"),
    ({"preset": "maximum", "gate": "redirect"}, "layer3/Relu:7@2,3", "logits:10"),
    ({"preset": "maximum", "gate": {"kind": "soft", "temperature": 0.5}, "optimizer": "spectral-ascent"}, "logits:6",
     "logits:11"),
    ({"preset": "maximum", "gate": "identity"}, "layer1/Relu@energy", "logits:12"),
    ({"preset": "maximum", "optimizer": {"kind": "adam", "lr": 0.02}, "regularizers": ["tv:0.5", "l2:0.1"]},
     "logits:7", "logits:13"),
    ({"preset": "maximum", "regularizers": ["l1:0.1", "blur:0.5,4"], "alpha": True}, "logits:8", "logits:14"),
    ({"preset": "maximum", "optimizer": {"kind": "l2-ascent", "lr": 2.0},
      "transforms": ["pad:2", "jitter:2", "scale:0.9,1.1", "rotate:5", "flip", "colour:0.1", "blur:0.5@0.5"]},
     "logits:9", "logits:15"),
    ({"parameterization": {"kind": "fourier", "decay_power": 1.5}, "transforms": ["crop:0.8,1.0", "noise:0.02"],
      "gate": "soft"}, "layer2/Relu_1:9", "logits:16"),
    ({"preset": "maximum", "start": {"kind": "uniform"},
      "search": {"arms": ["plain", "soft"], "restarts": 2}}, "layer3/Relu_1:1", "logits:17"),
    ({"diversity": {"layer": "layer2/Relu_1", "copies": 2}, "animation": {"frames": 4}}, "layer2/Relu_1:2", None),
    ({"preset": "maximum", "seed": 7, "size": [28, 28], "score_every": 3, "transforms": ["jitter:2"]},
     {"sum": ["logits:1", {"layer": "logits", "channel": 2, "weight": -1}]}, None),
]


class Server:
    """A build that serves on a free port, on a data directory of its own."""

    def __init__(self, program: Path, models: Path | None):
        self.folder = tempfile.TemporaryDirectory()
        arguments = [str(program), "serve", "--listen", "127.0.0.1:0", "--data-dir", self.folder.name, "--log", "error"]
        if models:
            arguments += ["--models-dirs", str(models)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.base = re.search(r"http://[0-9.:]+", self.process.stdout.readline())[0]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.base + path) as answer:
            return answer.read()

    def make(self, request: dict) -> list[str]:
        """The digests of a request's stimuli, and the numbers that the server gives with them."""
        body = json.dumps(request).encode()
        post = urllib.request.Request(self.base + "/v1/jobs", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(post) as answer:
                path = "/v1/jobs/" + json.load(answer)["id"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{request}: {error.read().decode()}") from error
        while True:
            job = json.loads(self.get(path))
            if job["state"] not in ("queued", "running"):
                break
            time.sleep(0.05)
        if job["state"] != "succeeded":
            raise SystemExit(f"{request}: {job}")
        found = []
        for stimulus in job["stimuli"]:
            numbers = json.dumps([stimulus[key] for key in ("score", "initial_score", "best_step", "passes", "trajectory")])
            png = self.get(stimulus["png"])
            found.append(hashlib.sha256(png + numbers.encode()).hexdigest())
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--data-dir", type=Path, help="a data directory that holds squeezenet1.1")
    parser.add_argument("--steps", type=int, default=24, help="steps of every request")
    options = parser.parse_args()
    models = options.data_dir and options.data_dir / "models"
    servers = [Server(program, models) for program in (options.old, options.new)]
    different = 0
    try:
        for number, (settings, small, large) in enumerate(REQUESTS):
            model, objective = (LARGE, large) if models and large and number % 2 else (SMALL, small)
            request = {"model": model, "objective": objective, "steps": options.steps} | settings
            old, new = (server.make(request) for server in servers)
            different += old != new
            print(f"{'same     ' if old == new else 'DIFFERENT'} {json.dumps(request)}", flush=True)
    finally:
        for server in servers:
            server.stop()
    print(f"{len(REQUESTS) - different} of {len(REQUESTS)} requests give the same bytes")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
