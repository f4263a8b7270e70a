#!/usr/bin/env python3
"""Checks that no run uses more memory than its limit.

    cargo build && python3 tools/memory/measure.py target/debug/proxygrad [--models DIR --layer MODEL=LAYER] [--filter TEXT]

For each case, a server with the smallest possible limit reports the estimate of the request. Then new servers run it: one
with exactly this limit and, for requests that can be split into batches, one with three times as much. The peak growth of
the process must not exceed the limit. Linux only; needs only Python.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

LEAST = 64 << 20


def status(pid, field):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


class Server:
    def __init__(self, program, models, bound):
        self.folder = tempfile.mkdtemp()
        command = [program, "serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir", self.folder,
                   "--max-run-memory", str(bound), "--job-time-limit", "1h", "--max-batch", "1024"]
        command += ["--models-dirs", models] if models else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.base = re.search(r"http://\S+", line).group(0)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def cases(models):
    def case(name, **fields):
        return name, {"model": "fashion-resnet8", "objective": "layer3/Relu:1", "steps": 6, **fields}

    side = [512, 512]
    units = [f"layer1/Relu_1:{n}" for n in range(12)]
    yield case("one stimulus", size=[1024, 1024])
    yield case("batch of 12", size=side, objectives=units, objective=None)
    yield case("energy", size=side, objective="layer1/Relu_1@energy")
    yield case("top half", size=side, objective="layer1/Relu_1:3@top0.5")
    yield case("a sum of 24 units", size=side, objective={"sum": [{"layer": "layer1/Relu_1", "channel": n % 16} for n in range(24)]})
    yield case("diversity, 8 copies", size=side, diversity={"layer": "layer1/Relu", "copies": 8})
    yield case("diversity, 24 copies", size=side, diversity={"layer": "layer1/Relu", "copies": 24})
    yield case("diversity in the last layers", size=[256, 256], diversity={"layer": "layer3/Relu", "copies": 16})
    yield case("auto", size=[256, 256], gate="auto", steps=256, objectives=units[:2], objective=None)
    yield case("32 candidates", size=side, search={"arms": ["plain", "redirect"], "restarts": 16, "rungs": [1]}, steps=40)
    yield case("fourier", size=side, parameterization="fourier", objectives=units[:6], objective=None)
    yield case("maco", size=side, parameterization="maco", objectives=units[:6], objective=None)
    yield case("adam", size=side, optimizer="adam", objectives=units[:6], objective=None)
    yield case("views", size=side, transforms=["pad:8", "jitter:8", "rotate:10", "scale:0.9,1.1", "blur:1", "noise:0.1"],
               objectives=units[:6], objective=None)
    yield case("readable", size=side, preset="lucid", gate="auto", steps=12, objectives=units[:6], objective=None)
    yield case("animation", size=[256, 256], animation={"frames": 120}, steps=128)
    yield case("diagnostics and alpha", size=side, diagnostics=True, alpha=True, objectives=units[:2], objective=None)
    yield case("64 small objectives", size=[160, 160], objectives=[f"layer1/Relu_1:{n % 16}" for n in range(64)], objective=None)
    yield case("regularizers", size=side, regularizers=["tv:0.1", "l2:0.1", "blur:1,2"], objectives=units[:6], objective=None)
    yield case("soft gate", size=side, gate={"kind": "soft", "temperature": 0.5}, objectives=units[:6], objective=None)
    for model, layer in models:
        for size in ([224, 224], [512, 512]):
            yield case(f"{model} {size[0]}", model=model, objective=f"{layer}:1", size=size)
            yield case(f"{model} {size[0]}, batch of 8", model=model, objective=None, size=size,
                       objectives=[f"{layer}:{n}" for n in range(8)])


def run(given, request, allowed):
    """Bytes that a fresh server grows by while it carries out a request."""
    server = Server(given.program, given.models, allowed)
    before = status(server.process.pid, "VmRSS")
    code, job = server.ask("/v1/jobs", request)
    assert code == 202, job
    while job["state"] not in ("succeeded", "failed"):
        time.sleep(0.05)
        job = server.ask(f"/v1/jobs/{job['id']}")[1]
    measured = status(server.process.pid, "VmHWM") - before
    server.close()
    assert job["state"] == "succeeded", job
    return measured


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program")
    arguments.add_argument("--models", help="folder of further models")
    arguments.add_argument("--layer", action="append", default=[], metavar="MODEL=LAYER", help="a layer of one of these models")
    arguments.add_argument("--filter", default="")
    given = arguments.parse_args()
    models = [tuple(text.split("=", 1)) for text in given.layer]
    print(f"{'case':<32} {'allowed':>9} {'measured':>9} {'ratio':>6}")
    worst = 0
    for name, request in cases(models):
        if given.filter not in name:
            continue
        request = {field: value for field, value in request.items() if value is not None}
        asked = Server(given.program, given.models, LEAST)
        code, problem = asked.ask("/v1/jobs", request)
        asked.close()
        estimate = re.search(r"up to (\d+) bytes", problem.get("detail", ""))
        if code not in (202, 422) or (code == 422 and not estimate):
            print(f"{name:<32} {code} {problem.get('detail')}")
            continue
        least = int(estimate.group(1)) if estimate else LEAST
        for allowed in [least] + [3 * least] * ("objectives" in request):
            measured = run(given, request, allowed)
            worst = max(worst, measured / allowed)
            print(f"{name:<32} {allowed / 2**20:>9.0f} {measured / 2**20:>9.0f} {allowed / measured:>6.2f}", flush=True)
    print(f"largest share of what was allowed: {worst:.2f}")
    return worst > 1


if __name__ == "__main__":
    sys.exit(main())
