"""A network is data behind the program of its kernels: shared programs, damaged plans."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_farm.compiler import Artifact, Graph, compile_network, host_target
from device_farm.compiler import program as programs
from device_farm.compiler.graph import BlockSparsity, Conv2d, Padding
from device_farm.compiler.seeded import uniform
from device_farm.compiler.tape import Tape
from device_farm.compiler.testing import Answer, chain, random_weights

TARGET = host_target()
Build = Callable[..., Artifact]


def network(*, kept: int, filters: int = 32, pixels: int = 6) -> Graph:
    sparsity = BlockSparsity(TARGET.block_height, (kept,) * -(-filters // TARGET.block_height))
    same = Padding.same(5)
    return chain((pixels, pixels, 4), Conv2d("c", (), filters=filters, kernel=(5, 5), padding=same, sparsity=sparsity))


@pytest.fixture
def build(tmp_path: Path, cache_dir: Path) -> Build:
    def run(graph: Graph, **options: Any) -> Artifact:
        return compile_network(graph, target=TARGET, out_dir=tmp_path / "out", cache_dir=cache_dir, **options)

    return run


def test_networks_of_known_kernels_are_compiled_without_a_linker(
    build: Build, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(network(kept=100))
    monkeypatch.setattr(programs, "link", lambda *_, **__: pytest.fail("a program was linked again"))
    pruned = network(kept=7)
    for artifact in (build(pruned), build(pruned, seed=2), build(pruned, weights=random_weights(pruned, seed=1))):
        image = uniform(artifact.input_seed, 0, 6 * 6 * 4)[None]
        expected = np.array(artifact.expected_output)
        assert np.abs(answer(artifact, image)[0] - expected).max() < 1e-5 * np.abs(expected).max()


def run(content: bytes, folder: Path) -> tuple[int, str]:
    path = folder / "damaged"
    path.write_bytes(content)
    path.chmod(0o755)
    done = subprocess.run([path, "info"], capture_output=True, text=True, timeout=20)
    return done.returncode, done.stderr


def test_a_plan_that_is_cut_off_or_another_programs_is_refused(build: Build, tmp_path: Path) -> None:
    content = build(network(kept=50)).path.read_bytes()
    assert run(content, tmp_path)[0] == 0
    for cut in (1, 8, 40, 100, 1000):
        assert run(content[:-cut], tmp_path) == (
            4,
            "npas-runner: the file has no whole plan at its end: it was cut off or damaged\n",
        )
    other = build(chain((5, 5, 4), Conv2d("d", (), filters=16, stride=(2, 2)))).path.read_bytes()
    tail = len(other) - other.rindex(b"npasplan") - 8
    assert tail == 0
    words = int.from_bytes(other[-16:-8], "little")
    place = int.from_bytes(other[-24:-16], "little")
    assert place + 8 * words + 40 == len(other)
    padding = bytes(-len(content) % 8)
    trailer = (0).to_bytes(8, "little") * 2 + (len(content) + len(padding)).to_bytes(8, "little")
    foreign = content + padding + other[place:-40] + trailer + other[-16:]
    status, line = run(foreign, tmp_path)
    assert (status, "made for another program" in line) == (4, True)


def test_no_damage_of_the_tape_goes_beyond_an_error(build: Build, tmp_path: Path) -> None:
    """Words replaced by extreme ones: reading ends in an error or in a plan, never in a crash."""
    content = build(network(kept=50)).path.read_bytes()
    place = int.from_bytes(content[-24:-16], "little")
    random = np.random.default_rng(0)
    for _ in range(60):
        at = place + 8 * int(random.integers(0, (len(content) - 40 - place) // 8))
        word = int(random.choice([-1, 2**63 - 1, -(2**63), 2**31, 2**40, 0])).to_bytes(8, "little", signed=True)
        status, _ = run(content[:at] + word + content[at + 8 :], tmp_path)
        assert status in (0, 4)


def test_a_tape_holds_texts_and_integers_in_whole_words() -> None:
    tape = Tape()
    tape.put_text("12345678")
    tape.put_integers((1, -1, 3))
    tape.put_float(1.0)
    assert [int.from_bytes(tape.to_bytes()[i : i + 8], "little") for i in range(0, 56, 8)] == [
        2,
        int.from_bytes(b"12345678", "little"),
        0,
        3,
        0xFFFFFFFF_00000001,
        3,
        0x3F800000,
    ]
