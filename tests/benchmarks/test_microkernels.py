from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import _loops, microkernels
from benchmarks._harness import Timing
from benchmarks._loops import BROADCASTS, Broadcasts, Taps
from device_farm.compiler import AVX512
from device_farm.compiler.target import host_targets


def body(loop: _loops.Loop) -> list[str]:
    """What is between the outermost label and its jump."""
    lines = list(loop.assembly())
    return lines[lines.index("1:") + 1 : lines.index("jnz 1b")]


def count(lines: list[str], pattern: str) -> int:
    return sum(bool(re.match(pattern, line)) for line in lines)


@pytest.mark.parametrize("form", BROADCASTS)
def test_a_round_of_broadcasts_is_what_its_name_says(form: str) -> None:
    bits, broadcast = BROADCASTS[form]
    lines = body(Broadcasts(form))
    assert count(lines, "vfmadd231ps") == 14
    assert count(lines, f"{broadcast} ") == (14 if broadcast else 0)
    assert count(lines, r"vfmadd231ps \d+\(%rdi\)\{1to") == (14 if broadcast is None else 0)
    assert all(("%zmm" in line) == (bits == 512) for line in lines if line.startswith("v"))


@pytest.mark.parametrize("from_memory", [False, True])
def test_a_tile_loads_a_number_once_or_twice_and_stores_where_it_is_told(from_memory: bool) -> None:
    loop = Taps(5, from_memory, 896)
    lines = body(loop)
    assert count(lines, "vfmadd231ps") == 5 * 14 == loop.multiply_adds // _loops.TILES
    assert count(lines, "vbroadcastss") == (0 if from_memory else 5 * 7)
    assert count(lines, r"vfmadd231ps \d+\(%r8\)\{1to16\}") == (5 * 14 if from_memory else 0)
    assert count(lines, r"vmovups %zmm\d+, \d+\(%r9\)") == 14
    assert loop.place == 896
    assert count(body(Taps(5, from_memory, None)), r"vmovups %zmm\d+, \d+\(%r9\)") == 0


def test_no_loop_writes_beyond_the_registers_and_names_are_distinct() -> None:
    text = _loops.source(microkernels.LOOPS)
    assert {int(number) for number in re.findall(r"%[xyz]mm(\d+)", text)} <= set(range(32))
    symbols = re.findall(r"\.globl (\w+)", text)
    assert len(set(symbols)) == len(symbols) == len(microkernels.LOOPS)
    assert _loops.table(microkernels.LOOPS).count("LOOP(") == len(symbols)


def test_figures_are_taken_against_multiply_adds_of_the_same_width() -> None:
    def rounds(ns_per_multiply_add: float, loop: _loops.Loop) -> Timing:
        return Timing((loop.multiply_adds * ns_per_multiply_add,) * 3)

    timings = {loop.symbol: rounds(1.0, loop) for loop in microkernels.LOOPS}
    half, whole, tile = Broadcasts("half vectors alone"), Broadcasts("alone"), Taps(3, True, 0)
    timings[half.symbol] = rounds(0.5, half)
    timings[tile.symbol] = Timing((tile.multiply_adds + _loops.TILES * 20.0,) * 3)
    assert microkernels.times_alone(timings, "half vectors, embedded") == pytest.approx(2.0)
    assert microkernels.times_alone(timings, "vbroadcastss") == pytest.approx(1.0)
    assert timings[whole.symbol].ms == 14
    assert microkernels.beyond(timings, tile) == pytest.approx(20.0)


@pytest.mark.skipif(AVX512 not in host_targets(), reason="needs AVX-512")
def test_every_loop_computes_what_it_says(tmp_path: Path) -> None:
    program = microkernels.build_program(tmp_path)
    assert all(microkernels.error(program, loop) <= microkernels.TOLERANCE for loop in microkernels.LOOPS)
    assert min(microkernels.session(program, Taps(3, True, 0))(0.001, 0)) > 0
