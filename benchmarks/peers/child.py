"""One peer in a process of its own: `python -m benchmarks.peers.child PEER MODEL SCRATCH`.

Engines bring thread pools, allocators, OpenMP runtimes and floating-point flags that meet badly in one process, and
some end it when they fail. Here each has its own. Requests are lines of JSON on stdin, one answer a line on stdout:

    {"answer": "image.npy", "to": "output.npy"}  ->  {}
    {"seconds": 0.3, "cpu": 3}                   ->  {"samples_ms": [...]}
    {"loads": 20}                                ->  {"seconds": [...]}, of loading the model as often again
    anything that fails                          ->  {"error": "..."}
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks._harness import timed
from benchmarks.peers.engine import Engine


def main() -> int:
    name, model, scratch = sys.argv[1:]
    replies = _own_stdout()
    allowed = os.sched_getaffinity(0)
    # OpenVINO gives a calling thread back the cores that the process had when the model was compiled, if those were not
    # all, and so undoes the pinning; one that was compiled on all cores leaves its thread alone
    os.sched_setaffinity(0, range(os.cpu_count() or 1))

    def load() -> Engine:
        engine: Engine = importlib.import_module(f"benchmarks.peers.{name}").Engine(Path(model), Path(scratch))
        return engine

    try:
        engine = load()
    except Exception as error:
        _reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return 1
    os.sched_setaffinity(0, allowed)
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        try:
            _reply(replies, serve(engine, load, json.loads(line)))
        except Exception as error:
            _reply(replies, {"error": f"{type(error).__name__}: {error}"})
    return 0


def serve(engine: Engine, load: Callable[[], Engine], request: dict[str, Any]) -> dict[str, Any]:
    if "loads" in request:
        return {"seconds": [_seconds(load) for _ in range(request["loads"])]}
    if "answer" in request:
        engine.load(np.load(request["answer"]))
        engine.run()
        np.save(request["to"], engine.output())
        return {}
    _pin(request["cpu"])
    samples = timed(engine.run, request["seconds"])
    if os.sched_getaffinity(0) != {request["cpu"]}:
        raise RuntimeError(f"the engine left core {request['cpu']} for {sorted(os.sched_getaffinity(0))} while timed")
    return {"samples_ms": samples}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _pin(cpu: int) -> None:
    """All threads, as some engines compute on one that they made themselves."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cpu})


def _own_stdout() -> IO[str]:
    """A private stdout for the replies; what engines print goes to stderr."""
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return private


def _reply(replies: IO[str], answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
