"""Runs a function in a process of its own, with a limit on its processor time.

Processes are forked: PyTorch is imported once, and what a network does to it ends with the process.
"""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

# A process that waits instead of computing is ended after this many times its processor time.
PATIENCE = 20


def run(function: Callable[[], None], seconds: int, log: Path) -> str | None:
    """Calls the function; its output goes to `log`. Returns why it failed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            os.setpgid(0, 0)
            output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + PATIENCE * seconds
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "it does not end"
        time.sleep(0.05)
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 0:
        log.unlink()
        return None
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"takes more than {seconds} s of processor time"
    last = log.read_text(errors="replace").strip().splitlines() or [f"exit {code}"]
    return last[-1][:300]
