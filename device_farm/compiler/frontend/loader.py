"""The child of loading.py: `python -m device_farm.compiler.frontend.loader JOB`, a JSON object.

It leaves graph.json, weights.safetensors and facts.json in the job's folder; of a failure, facts.json alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.graph import Shape
from device_farm.errors import CompileError, FarmError, InvalidGraph

if TYPE_CHECKING:
    from torch import nn

    from device_farm.compiler.frontend.walk import Imported

TOLERANCE = 1e-4  # of our graph against what it was made from
Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # an NCHW image -> its output


def main(job: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (job["memory_bytes"],) * 2)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    folder = Path(job["folder"])
    try:
        facts = _load(job, folder)
    except FarmError as error:
        facts = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        gib = job["memory_bytes"] / 1024**3
        facts = {"error": "InvalidGraph", "message": f"{job['source']}: loading it needs more than {gib:.0f} GiB"}
    (folder / "facts.json.new").write_text(json.dumps(facts))
    (folder / "facts.json.new").rename(folder / "facts.json")


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(1)


def _load(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    from safetensors.numpy import save_file

    imported, answer, checked_with = load(job)
    error = None if answer is None else _compare(imported, answer)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in imported.weights.items()}, folder / "weights.safetensors"
    )
    (folder / "graph.json").write_text(json.dumps(imported.graph.to_json()))
    return {"source_error": error, "checked_with": checked_with}


def load(job: dict[str, Any]) -> tuple[Imported, Answer | None, str | None]:
    """The network, and who can say what it should answer."""
    shape = None if job["input"] is None else Shape(*job["input"])
    if job["kind"] == "onnx":
        from device_farm.compiler.frontend.onnx_checks import read_model
        from device_farm.compiler.frontend.onnx_model import import_onnx

        model = read_model(Path(job["source"]))
        imported = import_onnx(model, shape)
        answer = _onnx_runtime(model)
        return imported, answer, None if answer is None else "ONNX Runtime"

    from device_farm.compiler.frontend.torch_module import import_module

    if job["kind"] == "pt2":
        from device_farm.compiler.frontend.pt2_file import read_pt2

        program = read_pt2(Path(job["source"]))
        return import_module(program, shape), _torch(program.module()), "torch"
    module = _module(job["source"], job["function"])
    return import_module(module, shape), _torch(module.eval()), "torch"


def _module(source: str, function: str) -> nn.Module:
    """What the user's function returns."""
    import torch

    where = f"{source}:{function}"
    torch.manual_seed(0)
    try:
        if source.endswith(".py"):
            path = Path(source).resolve()
            sys.path.insert(0, str(path.parent))
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise InvalidGraph(f"{where}: cannot be imported")
            found: Any = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = found
            spec.loader.exec_module(found)
        else:
            sys.path.insert(0, os.getcwd())
            found = importlib.import_module(source)
        for name in function.split("."):
            if not hasattr(found, name):
                raise InvalidGraph(f"{where}: {source} has no {name!r}{_near(name, dir(found))}")
            found = getattr(found, name)
        made = found if isinstance(found, torch.nn.Module) or not callable(found) else found()
    except (FarmError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a user's code raises whatever it likes
        raise InvalidGraph(f"{where}: {_said(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise InvalidGraph(f"{where}: expected a function that returns a torch.nn.Module; got {type(made).__name__}")
    return made


def _said(error: BaseException) -> str:
    """ValueError: no such weights (nets.py:12)"""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    reason = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {reason[:300]}{place}"


def _near(name: str, choices: list[str]) -> str:
    import difflib

    found = difflib.get_close_matches(name, [choice for choice in choices if not choice.startswith("_")], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _torch(module: Any) -> Answer:
    import torch

    def answer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            output = module(torch.from_numpy(image))
        array: NDArray[np.float32] = (output[0] if isinstance(output, tuple | list) else output).numpy()
        return array

    return answer


def _onnx_runtime(model: Any) -> Answer | None:
    """ONNX Runtime's answer; None where it is not installed (it is an extra), or refuses the model."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:  # its own classes; what it cannot load, it cannot check
        return None

    def answer(image: NDArray[np.float32]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: image})[0]
        return array

    return answer


def _compare(imported: Imported, answer: Answer) -> float:
    """Relative error of the graph for one random image. Raises InvalidGraph, CompileError."""
    from device_farm.compiler.reference import reference_output
    from device_farm.compiler.seeded import INPUT_STREAM, uniform

    graph = imported.graph
    shape = graph.input.shape
    image = uniform(0, INPUT_STREAM, shape.elements).reshape(shape)  # NHWC
    expected = np.asarray(answer(np.ascontiguousarray(image.transpose(2, 0, 1)[None])), np.float64)
    if not np.isfinite(expected).all():
        raise InvalidGraph("the network answers NaN or infinity to a random image in [-1, 1): check its weights")
    output = reference_output(graph, imported.weights, image).transpose(2, 0, 1)
    if output.size != expected.size:
        raise CompileError(f"our graph gives {output.size} numbers, the network {expected.size}: please report this")
    scale = float(np.abs(expected).max()) or 1.0
    error = float(np.abs(output.reshape(-1) - expected.reshape(-1)).max()) / scale
    if not error <= TOLERANCE:
        raise CompileError(
            f"our graph differs from the network by {error:.2g} of its largest output, {TOLERANCE:g} is tolerated: a "
            "defect of the front end, please report it"
        )
    return error


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
