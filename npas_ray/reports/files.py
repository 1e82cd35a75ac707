"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from npas_ray.errors import InfrastructureError, RunError


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by this text (UTF-8). Raises RunError if that is not allowed, InfrastructureError if it fails."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            scratch.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except PermissionError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    except OSError as error:
        raise InfrastructureError(f"cannot write {path}: {error.strerror}") from error
