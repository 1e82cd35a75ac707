"""Report files, whose failure to be written is said in npas's own errors."""

from __future__ import annotations

from pathlib import Path

from device_farm.files import write_atomically
from npas_ray.errors import InfrastructureError, RunError


def write_text(path: Path, text: str) -> None:
    """Replaces a file by this text (UTF-8). Raises RunError if that is not allowed, InfrastructureError if it fails."""
    try:
        write_atomically(path, text.encode("utf-8", errors="backslashreplace"))
    except PermissionError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    except OSError as error:
        raise InfrastructureError(f"cannot write {path}: {error.strerror}") from error
