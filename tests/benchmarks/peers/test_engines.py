"""Every peer that is installed, in its own process: right, timed, pinned, and clear when it fails.

`dev` installs ONNX Runtime, LiteRT (XNNPACK) and torch; the extra `bench` adds the others to the same tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks._harness import interleave, relative_error
from benchmarks._onnx import to_onnx
from benchmarks.peers import PEERS, Peer
from benchmarks.peers.process import TOLERANCE, PeerFailed, PeerProcess, open_peers
from device_farm.compiler import reference_output, seeded_weights
from device_farm.compiler.graph import Graph

SLOW = {"torch_compile"}  # runs a C++ compiler for a while
INSTALLED = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name, peer in PEERS.items() if not peer.missing()
]


@pytest.fixture(scope="module")
def model(network: Graph) -> bytes:
    content: bytes = to_onnx(network, seeded_weights(network, seed=3)).SerializeToString()
    return content


@pytest.fixture(scope="module")
def image(network: Graph) -> NDArray[np.float32]:
    height, width, channels = network.input.shape
    return np.random.default_rng(5).standard_normal((1, channels, height, width)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(network: Graph, image: NDArray[np.float32]) -> NDArray[np.float32]:
    return reference_output(network, seeded_weights(network, seed=3), image.transpose(0, 2, 3, 1))


def test_the_peers_of_the_development_environment_are_installed() -> None:
    installed = {name for name, peer in PEERS.items() if not peer.missing()}
    assert installed >= {"onnxruntime", "litert", "torch_eager", "torch_compile"}


@pytest.mark.parametrize("name", INSTALLED)
def test_an_engine_answers_rightly_and_is_timed_where_it_is_told(
    name: str, model: bytes, image: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # as within a round: the peer is opened on fewer cores than it is timed on
    try:
        opened = PeerProcess(name, model)
    finally:
        os.sched_setaffinity(0, allowed)
    with opened as peer:
        assert relative_error(peer.answer(image), expected) <= TOLERANCE
        assert relative_error(peer.answer(2 * image), expected) > TOLERANCE  # the image is read anew
        cpu = max(allowed)
        samples = peer(0.02, cpu)
        assert min(samples) > 0
        threads = Path(f"/proc/{peer.pid}/task").iterdir()
        assert {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads} == {frozenset({cpu})}
        assert len(interleave({name: peer}, rounds=2, seconds=0.01)[name].rounds_ms) == 2
    assert not Path(f"/proc/{peer.pid}").exists()


def test_a_wrong_answer_is_named_and_never_timed(
    model: bytes, image: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    ready, absent, errors = open_peers(["onnxruntime"], model, image, expected + 1)
    assert not ready
    assert "relative error" in absent["onnxruntime"]
    assert errors["onnxruntime"] > TOLERANCE


def test_a_model_is_loaded_again_as_often_as_asked(model: bytes, image: NDArray[np.float32]) -> None:
    with PeerProcess("onnxruntime", model) as peer:
        before = peer.answer(image)
        seconds = peer.loads(3)
        assert len(seconds) == 3 and min(seconds) > 0
        assert np.array_equal(peer.answer(image), before)


def test_an_absent_peer_is_named(
    monkeypatch: pytest.MonkeyPatch, model: bytes, image: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    monkeypatch.setitem(PEERS, "openvino", Peer("OpenVINO", ("no-such-distribution",), ""))
    ready, absent, errors = open_peers(["openvino"], model, image, expected)
    assert (ready, absent, errors) == ({}, {"openvino": "not installed: no-such-distribution"}, {})


def test_an_engine_that_refuses_the_model_says_why() -> None:
    with pytest.raises(PeerFailed, match=r"onnxruntime: .*(Protobuf|protobuf|INVALID)"):
        PeerProcess("onnxruntime", b"no model")


def test_a_process_that_dies_is_an_error_and_not_a_hang(model: bytes, image: NDArray[np.float32]) -> None:
    with PeerProcess("onnxruntime", model) as peer:
        peer.answer(image)
        os.kill(peer.pid, 9)
        with pytest.raises(PeerFailed, match="onnxruntime ended with -9"):
            peer(0.01, 0)
