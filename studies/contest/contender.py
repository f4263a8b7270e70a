"""The process of one contender.

    python -m contest.contender

Reads its orders from the first line and answers with its version, then a task from each line and answers
it. Answers go to a descriptor of their own: tools print.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
import traceback

from contest.task import Answer, Orders, Task

MODULES = {
    "pytorch": "with_pytorch",
    "lucent": "with_lucent",
    "horama-maco": "with_horama",
    "horama-fourier": "with_horama",
    "dreamlens-maco": "with_dreamlens",
    "dreamlens-fourier": "with_dreamlens",
    "xplique-maco": "with_xplique",
    "xplique-fourier": "with_xplique",
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    document = json.loads(sys.stdin.readline())
    orders = Orders(**document | {"size": tuple(document["size"])})
    try:
        module = importlib.import_module(f"contest.{MODULES[orders.tool]}")
        contender = module.Contender(orders)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=answers)
        raise SystemExit(1) from None
    print(json.dumps({"version": contender.version}), file=answers)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        started = time.perf_counter()
        try:
            answer = contender.run(task)
        except Exception as error:
            traceback.print_exc()
            seconds = time.perf_counter() - started
            answer = Answer(task.stem, 0, 0, seconds, None, [], f"{type(error).__name__}: {error}")
        print(json.dumps(dataclasses.asdict(answer)), file=answers)


if __name__ == "__main__":
    main()
