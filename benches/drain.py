"""Finished jobs per second of a server, without submitting clients and with many.

    cargo build --release
    python3 benches/drain.py target/release/proxygrad                   # 0 and 64 submitters
    python3 benches/drain.py PROGRAM --submitters 0,16,64 --seconds 20 --steps 8

Each measurement starts its own server on an empty data directory, fills its queue, and counts the jobs that succeed in the
given time. A submitter posts one job after another over one connection, as fast as they are answered; if the queue is full it
waits for the time in `Retry-After`, or not at all with `--hasty`. All submitters run in one process, on the same machine as
the server.
"""
import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time

JOB = {"model": "fashion-resnet8", "objective": "logits:1"}


class Client:
    """One connection to the server."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None):
        headers = {} if body is None else {"Content-Type": "application/json"}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        return answer.status, answer.getheader("retry-after"), answer.read()


def ended(client):
    """Jobs that have succeeded since the server was started."""
    for line in client.ask("GET", "/metrics")[2].decode().splitlines():
        if line.startswith('proxygrad_jobs_total{state="succeeded"}'):
            return float(line.split()[-1])
    return 0.0


def submit_for_ever(port, steps, thread, hasty, counts):
    client, n = Client(port), 0
    while True:
        n += 1
        status, wait, _ = client.ask("POST", "/v1/jobs", JOB | {"steps": steps, "seed": thread << 32 | n})
        counts[status] = counts.get(status, 0) + 1
        if status == 503 and not hasty:
            time.sleep(float(wait or 1))


def load(arguments):
    """The process of the submitters: prints what they were answered when its input ends."""
    counts = [{} for _ in range(arguments.load)]
    for thread in range(arguments.load):
        work = (arguments.port, arguments.steps, thread, arguments.hasty, counts[thread])
        threading.Thread(target=submit_for_ever, args=work, daemon=True).start()
    sys.stdin.read()
    total = {}
    for count in counts:
        for status, n in dict(count).items():
            total[status] = total.get(status, 0) + n
    print(json.dumps(total), flush=True)


def fill(port, steps, jobs):
    """Puts jobs into the queue, through a few clients at once."""
    def some(thread):
        client = Client(port)
        for n in range(jobs // 8):
            client.ask("POST", "/v1/jobs", JOB | {"steps": steps, "seed": 1 << 50 | thread << 32 | n})
    threads = [threading.Thread(target=some, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(arguments, submitters):
    """Jobs ended per second, and what the submitters were answered."""
    folder = tempfile.mkdtemp()
    command = [arguments.program, "serve", "--listen", f"127.0.0.1:{arguments.port}", "--data-dir", folder, "--log", "error"]
    command += ["--max-steps", "1000000", "--queue-limit", str(2 * arguments.jobs)]
    server = subprocess.Popen(command + arguments.serve.split(), stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        client = Client(arguments.port)
        # Keeps the device busy until everything is ready.
        first = json.loads(client.ask("POST", "/v1/jobs", JOB | {"steps": 1_000_000})[2])
        fill(arguments.port, arguments.steps, arguments.jobs)
        crowd = None
        if submitters:
            own = [sys.executable, __file__, arguments.program, "--port", str(arguments.port), "--steps", str(arguments.steps)]
            own += ["--load", str(submitters)] + (["--hasty"] if arguments.hasty else [])
            crowd = subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            time.sleep(1)
        client.ask("POST", f"/v1/jobs/{first['id']}/cancel")
        begin, before = time.monotonic(), ended(client)
        time.sleep(arguments.seconds)
        rate = (ended(client) - before) / (time.monotonic() - begin)
        queued = json.loads(client.ask("GET", "/readyz")[2]).get("jobs", {}).get("queued")
        answers = json.loads(crowd.communicate()[0]) if crowd else {}
        return rate, queued, answers
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="path of proxygrad")
    parser.add_argument("--submitters", default="0,64", help="numbers of clients that submit (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="length of a measurement (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps of a job (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2400, help="jobs queued before a measurement (%(default)s)")
    parser.add_argument("--serve", default="", help="further arguments of `proxygrad serve`")
    parser.add_argument("--hasty", action="store_true", help="submitters try again at once when the queue is full")
    parser.add_argument("--port", type=int, default=18830, help="where the server listens (%(default)s)")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        return load(arguments)
    first = None
    for submitters in map(int, arguments.submitters.split(",")):
        rate, queued, answers = measure(arguments, submitters)
        first = first or rate
        accepted = answers.get("202", 0) / (arguments.seconds + 1)
        print(f"{submitters:3} submitters: {rate:6.1f} jobs end per second ({rate / first:4.0%}), "
              f"{accepted:.0f} accepted per second, answers {answers}, {queued} queued at the end", flush=True)


if __name__ == "__main__":
    main()
