"""What is said of Ray's errors."""

from __future__ import annotations

import pytest

from npas_ray.runs.ray_session import in_a_line

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
