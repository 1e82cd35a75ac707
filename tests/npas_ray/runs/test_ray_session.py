"""What is said of Ray's errors."""

from __future__ import annotations

import socket

import pytest

from npas_ray.errors import InfrastructureError
from npas_ray.runs.ray_session import in_a_line, ray_session

REMOTE = """\x1b[36mray::Trainer.__init__()\x1b[39m (pid=7)
    self._teacher = cached_teacher(directory)
  File "teacher.py", line 171, in cached_teacher
OSError: [Errno 28] No space left on device
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (REMOTE, "OSError: [Errno 28] No space left on device"),
        ("The actor died unexpectedly.\n\tclass_name: Trainer\n", "The actor died unexpectedly."),
        ("", "RuntimeError"),
    ],
)
def test_an_error_of_ray_is_one_line(text: str, said: str) -> None:
    assert in_a_line(RuntimeError(text)) == said


def test_a_cluster_that_is_not_there_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InfrastructureError, match=f"nobody answers at {address}"), ray_session(address, num_cpus=1):
            pass
