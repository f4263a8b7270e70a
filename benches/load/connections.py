"""Opens hundreds of connections of a bad kind, and measures how fast probes and an honest POST are answered meanwhile.

    proxygrad serve --listen 127.0.0.1:18840 --data-dir "$(mktemp -d)" --max-steps 1000000 &
    python3 benches/load/connections.py http://127.0.0.1:18840 [--count 600] [--kinds silent,waits]

One line per kind: the slowest answers in milliseconds. The status is 1 when a probe took longer than 100 ms or a POST
longer than 500 ms, or when one of them was not answered as it should be. Needs nothing but Python 3.9 or later.
"""

import argparse
import json
import resource
import socket
import sys
import time
import urllib.parse

PROBES = ("/livez", "/readyz", "/metrics")
QUICK = json.dumps({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": 4}).encode()
ENDLESS = json.dumps({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": 1_000_000}).encode()


def request(method, path, body=b"", headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname, parts.port)

    def ask(self, method, path, body=b"", headers=(), timeout=10):
        """Status, body and seconds of a request on its own connection."""
        start = time.perf_counter()
        with socket.create_connection(self.address, timeout=timeout) as stream:
            stream.sendall(request(method, path, body, (*headers, "Connection: close")))
            answer = b""
            while chunk := stream.recv(65536):
                answer += chunk
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), content, time.perf_counter() - start

    def submit(self, body):
        status, content, _ = self.ask("POST", "/v1/jobs", body)
        if status not in (200, 202):
            sys.exit(f"the job is not accepted: {status} {content[:300]!r}")
        return json.loads(content)["id"]


class Crowd:
    """Connections that each send some bytes, one of them again and again, and never read."""

    def __init__(self, server, count, first, trickle=b"", every=1.0):
        self.trickle, self.every = trickle, every
        self.streams = []
        for _ in range(count):
            stream = socket.socket()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.settimeout(2)
            try:
                stream.connect(server.address)
                stream.setblocking(False)
                self.streams.append(stream)
                self.send(stream, first)
            except OSError:
                stream.close()
        self.next = time.monotonic() + every

    def send(self, stream, data):
        try:
            stream.send(data)
        except OSError:
            pass

    def go_on(self):
        """What a slow client does from time to time."""
        if self.trickle and time.monotonic() >= self.next:
            self.next = time.monotonic() + self.every
            for stream in self.streams:
                self.send(stream, self.trickle)

    def open(self):
        """How many of them the server has not closed. Reads what has come: only then does the end show."""
        number = 0
        for stream in self.streams:
            try:
                while stream.recv(1 << 20):
                    pass
            except BlockingIOError:
                number += 1
            except OSError:
                pass
        return number

    def close(self):
        for stream in self.streams:
            stream.close()


def kinds(job):
    """First bytes, and what is sent again and again, of each kind."""
    body = request("POST", "/v1/jobs", b"{" + b" " * 999_999)
    head = body[: body.index(b"\r\n\r\n") + 5]
    return {
        "silent": (b"", b""),
        "half-head": (b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: ", b"x"),
        "slow-body": (head, b" "),
        "never-reading": (request("GET", "/openapi.json") * 40, b""),
        "streams": (request("GET", f"/v1/jobs/{job}/events"), b""),
        "waits": (request("POST", "/v1/jobs", QUICK, ("Prefer: wait=60",)), b""),
        "waits-for-one": (request("POST", "/v1/jobs", ENDLESS, ("Prefer: wait=60", "Idempotency-Key: one")), b""),
    }


def measure(server, crowd, seconds):
    """The slowest answer of each path in seconds, and what went wrong."""
    slowest, wrong = dict.fromkeys((*PROBES, "POST"), 0.0), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        crowd.go_on()
        for path in (*PROBES, "POST"):
            try:
                if path == "POST":
                    status, content, took = server.ask("POST", "/v1/jobs", QUICK)
                else:
                    status, content, took = server.ask("GET", path)
            except (OSError, IndexError) as error:
                wrong.append(f"{path}: {error!r}")
                continue
            slowest[path] = max(slowest[path], took)
            if status != (202 if path == "POST" else 200) and not (path == "POST" and b"queue-full" in content):
                wrong.append(f"{path}: {status} {content[:200]!r}")
        time.sleep(0.05)
    return slowest, wrong


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("url")
    arguments.add_argument("--count", type=int, default=600)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--kinds", default="")
    arguments = arguments.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files[1], 2 * arguments.count + 100), files[1]))

    server = Server(arguments.url)
    job = server.submit(ENDLESS)
    failed = False
    chosen = [kind for kind in arguments.kinds.split(",") if kind]
    for kind, (first, trickle) in kinds(job).items():
        if chosen and kind not in chosen:
            continue
        crowd = Crowd(server, arguments.count, first, trickle)
        slowest, wrong = measure(server, crowd, arguments.seconds)
        times = "  ".join(f"{path} {1000 * took:.0f} ms" for path, took in slowest.items())
        print(f"{kind:14} {len(crowd.streams)} opened, {crowd.open()} still open   {times}   {len(wrong)} wrong")
        for line in wrong[:3]:
            print("   ", line)
        slow = any(took > (0.5 if path == "POST" else 0.1) for path, took in slowest.items())
        failed = failed or slow or bool(wrong)
        crowd.close()
    sys.exit(failed)


main()
