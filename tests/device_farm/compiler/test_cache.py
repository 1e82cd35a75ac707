"""The kernel cache and the artifacts' folder: shared by processes, damaged, half written, found again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_farm.compiler import NEON, Graph, artifact_key, compile_network, host_target, load_artifact
from device_farm.compiler.cache import ObjectCache
from device_farm.compiler.compile import kernel_symbol
from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Padding
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.seeded import uniform
from device_farm.compiler.testing import Answer, chain
from device_farm.errors import CompileError

TARGET = host_target()
WORKER = """
import sys, json
from pathlib import Path
from device_farm.compiler import *
graph, folder = Graph.from_json(json.loads(sys.argv[1])), Path(sys.argv[2])
print(compile_network(graph, target=host_target(), out_dir=folder / "out", cache_dir=folder / "cache").key)
"""


def small(kept: int = 20, filters: int = 24) -> Graph:
    sparsity = BlockSparsity(TARGET.block_height, (kept,) * -(-filters // TARGET.block_height))
    return chain((6, 6, 4), Conv2d("c", (), filters=filters, kernel=(3, 3), padding=Padding.same(3), sparsity=sparsity))


def symbols(graph: Graph) -> set[str]:
    memory = plan_memory(graph, TARGET)
    packed, _ = pack(graph, memory, target=TARGET, weights=None, seed=0)
    steps = lower(graph, memory, packed, TARGET)
    return {kernel_symbol(call.spec, TARGET) for step in steps for call in step.calls}


def test_another_pruning_of_a_known_shape_needs_no_new_kernel() -> None:
    assert symbols(small(kept=20)) == symbols(small(kept=3))
    assert symbols(small()) != symbols(chain((6, 6, 4), Conv2d("c", (), filters=24, activation=Activation.RELU)))


def test_damaged_and_missing_entries_are_made_again(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "cache")
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"object")

    for damage in (None, b"", b"garbage", b"\0" * 32 + b"object"):
        if damage is not None:
            next(cache.folder.glob("*.object")).write_bytes(damage)
            assert cache.get("k") is None
        assert cache.get_or_make("k", make) == b"object"
    assert cache.get_or_make("k", make) == b"object"
    assert len(made) == 4
    assert [entry.name for entry in cache.folder.iterdir()] == ["k.object"]


def test_a_damaged_kernel_in_the_cache_is_never_linked(tmp_path: Path, answer: Answer) -> None:
    graph = small()
    first = compile_network(graph, target=TARGET, out_dir=tmp_path / "a", cache_dir=tmp_path / "cache")
    for entry in (tmp_path / "cache").glob("*.object"):
        entry.write_bytes(entry.read_bytes()[:-7] + b"garbage")
    second = compile_network(graph, target=TARGET, out_dir=tmp_path / "b", cache_dir=tmp_path / "cache")
    image = uniform(0, 0, 6 * 6 * 4)[None]
    assert (answer(first, image) == answer(second, image)).all()


def test_processes_share_cache_and_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, json.dumps(small().to_json()), str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    keys = {worker.communicate(timeout=120)[0].strip() for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0]
    assert keys == {artifact_key(small(), target=TARGET)}
    (key,) = keys
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [key, f"{key}.json"]
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".object"]
    assert load_artifact(tmp_path / "out" / key).key == key


def test_a_killed_compilation_leaves_nothing_half_done(tmp_path: Path, answer: Answer) -> None:
    """kill -9 as soon as the first kernel appears, while others are being made and linked."""
    command = [sys.executable, "-c", WORKER, json.dumps(small().to_json()), str(tmp_path)]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    cache = tmp_path / "cache"
    while worker.poll() is None and not any(cache.glob("*.object")):
        time.sleep(0.005)
    worker.kill()
    worker.wait()
    assert not any((tmp_path / "out").glob("[!.]*"))
    entries = ObjectCache(cache)
    assert all(entries.get(path.stem) for path in cache.glob("*.object"))
    artifact = compile_network(small(), target=TARGET, out_dir=tmp_path / "out", cache_dir=cache)
    assert answer(artifact, uniform(0, 0, 6 * 6 * 4)[None]).shape == (1, 6 * 6 * 24)


def test_an_artifact_is_found_again_and_a_damaged_one_is_built_again(tmp_path: Path, cache_dir: Path) -> None:
    def build() -> Path:
        return compile_network(small(), target=TARGET, out_dir=tmp_path, cache_dir=cache_dir).path

    path = build()
    before = path.stat().st_mtime_ns
    assert build().stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CompileError, match="compile it again"):
        load_artifact(path)
    assert build().stat().st_mtime_ns != before
    manifest = path.with_name(path.name + ".json")
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(CompileError):
        load_artifact(path)
    build()
    artifact = load_artifact(path)
    assert artifact == compile_network(small(), target=TARGET, out_dir=tmp_path, cache_dir=cache_dir)


def test_equal_requests_have_equal_keys_and_others_have_not() -> None:
    base = artifact_key(small(), target=TARGET)
    assert base == artifact_key(Graph.from_json(small().to_json()), target=TARGET)
    others = {
        artifact_key(small(kept=21), target=TARGET),
        artifact_key(small(), target=NEON),
        artifact_key(small(), target=dataclasses.replace(TARGET, tile_pixels=5)),
        artifact_key(small(), target=TARGET, seed=1),
    }
    assert len(others | {base}) == 5


def test_with_all_kernels_known_neither_tvm_nor_a_compiler_of_kernels_is_loaded(
    tmp_path: Path, cache_dir: Path
) -> None:
    compile_network(small(), target=TARGET, out_dir=tmp_path / "warm", cache_dir=cache_dir)
    script = (
        "import sys, json; from pathlib import Path; from device_farm.compiler import *;"
        "graph = Graph.from_json(json.loads(sys.argv[1]));"
        "assert not {'tvm', 'torch'} & set(sys.modules);"
        "compile_network(graph, target=host_target(), out_dir=Path(sys.argv[2]), cache_dir=Path(sys.argv[3]), seed=7);"
        "assert 'tvm' not in sys.modules"
    )
    arguments = [json.dumps(small(kept=5).to_json()), str(tmp_path / "out"), str(cache_dir)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=60)
