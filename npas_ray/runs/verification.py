"""Does the artifact that ships say what torch says, over the whole test set?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from npas_ray.errors import RunError
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.shipped import Shipped

MIN_AGREEMENT = 0.999
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Verification:
    """Artifact against torch on the test images. All but `images` are fractions."""

    model: str
    images: int
    agreement: float  # of the labels
    artifact_accuracy: float
    torch_accuracy: float
    reported_accuracy: float  # what the report says

    @property
    def passed(self) -> bool:
        return self.agreement >= MIN_AGREEMENT and self.torch_accuracy == self.reported_accuracy

    def __str__(self) -> str:
        return (
            f"{self.images} test images through the artifact for {self.model} and through torch\n"
            f"labels that agree   {self.agreement:.2%}\n"
            f"accuracy, artifact  {self.artifact_accuracy:.2%}\n"
            f"accuracy, torch     {self.torch_accuracy:.2%}\n"
            f"accuracy, report    {self.reported_accuracy:.2%}\n"
            f"{'verified' if self.passed else 'NOT VERIFIED'}"
        )


def verify_run(run_dir: Path) -> Verification:
    """Classifies the test set with the artifact of `run_dir`/best that runs on this machine, and with torch.

    Raises RunError: no run, nothing shipped yet, files missing or damaged, no artifact for this machine.
    """
    import torch

    from device_farm.compiler import load_artifact
    from device_farm.compiler.target import host_targets
    from device_farm.errors import CompileError
    from device_farm.measurement.classify import classify
    from device_farm.transport.local import LocalTransport
    from npas_ray.training.optimise import logits

    run = RunDirectory.existing(run_dir)
    shipped = Shipped(run.best)
    if not run.best.is_dir():
        raise RunError(f"{run_dir} has shipped nothing yet; finish it with `npas search CONFIG --resume`")
    reported = float(shipped.summary["test_accuracy"])
    network = shipped.network()
    runnable, here = {}, {target.name for target in host_targets()}
    for model in shipped.models:
        try:
            artifact = load_artifact(shipped.artifact(model))
        except CompileError as error:
            raise RunError(str(error)) from error
        if artifact.target in here:
            runnable[model] = artifact
    if not runnable:
        raise RunError(f"{run.best} has no artifact for this machine ({', '.join(sorted(here))})")
    model, artifact = next(iter(runnable.items()))
    test = shipped.task().test
    torch.set_num_threads(1)  # as in training: the same bits
    expected = logits(network, test.images).argmax(1).numpy()
    images = test.images.permute(0, 2, 3, 1).contiguous().numpy()  # NCHW -> NHWC
    with tempfile.TemporaryDirectory(prefix="npas-verify-") as work_dir:
        transport = LocalTransport(Path(work_dir))
        try:
            got = classify(transport, artifact, images, timeout_s=TIMEOUT_S).argmax(1)
        finally:
            transport.close()
    labels = test.labels.numpy()
    return Verification(
        model=model,
        images=len(test),
        agreement=float((got == expected).mean()),
        artifact_accuracy=float((got == labels).mean()),
        torch_accuracy=float((expected == labels).mean()),
        reported_accuracy=reported,
    )
