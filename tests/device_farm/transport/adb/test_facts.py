from __future__ import annotations

import pytest

from device_farm.compiler.target import AVX2, AVX512, NEON, NEON_FP16, Precision
from device_farm.errors import Refused
from device_farm.transport.adb.facts import choose_target, make_facts, parse_clusters
from device_farm.transport.adb.properties import clean, parse_cpu_features, parse_properties

_V3 = ["fpu", "sse", "sse2", "xsave", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]
_V4 = [*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
_V8 = ["fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32"]
_V82 = [*_V8, "atomics", "fphp", "asimdhp", "asimddp"]


def test_properties_of_several_lines_and_the_first_of_a_name() -> None:
    text = "[a.b]: [one]\r\n[empty]: []\n[two]: [line 1\nline 2]\n[a.b]: [later]\nno property\n[x]: [a]: [b]\n"
    assert parse_properties(text) == {"a.b": "one", "empty": "", "two": "line 1\nline 2", "x": "a]: [b"}


def test_hostile_properties_take_no_time() -> None:
    assert parse_properties("[a]: [" * 200_000) == {}
    assert len(parse_properties("[a]: [\n" * 200_000)) == 0


def test_features_are_those_of_every_core() -> None:
    text = "processor : 0\nFeatures : fp asimd asimdhp\n\nprocessor : 1\nFeatures\t: fp asimd\nHardware : X\n"
    assert parse_cpu_features(text) == {"fp", "asimd"}
    assert parse_cpu_features("flags\t\t: sse avx2\nbogomips: 1\n") == {"sse", "avx2"}
    assert parse_cpu_features("") == frozenset()


@pytest.mark.parametrize(
    ("abis", "features", "precision", "target"),
    [
        (["arm64-v8a", "armeabi-v7a"], _V8, Precision.FP32, NEON),
        (["arm64-v8a"], _V82, Precision.FP32, NEON),
        (["arm64-v8a"], _V82, Precision.FP16, NEON_FP16),
        (["x86_64", "x86"], _V3, Precision.FP32, AVX2),
        (["x86_64"], _V4, Precision.FP32, AVX512),
        (["x86_64"], [f for f in _V4 if f != "avx512dq"], Precision.FP32, AVX2),
    ],
)
def test_the_best_target_that_the_processor_runs(
    abis: list[str], features: list[str], precision: Precision, target: object
) -> None:
    assert choose_target(abis, features, precision) == target


@pytest.mark.parametrize(
    ("abis", "features", "precision", "why"),
    [
        (["arm64-v8a"], _V8, Precision.FP16, "asimdhp and fphp"),
        (["arm64-v8a"], [*_V8, "fphp"], Precision.FP16, "lacks asimdhp"),
        (["arm64-v8a"], ["fp"], Precision.FP32, "no NEON"),
        (["arm64-v8a"], [], Precision.FP32, "no NEON"),
        (["x86_64"], [f for f in _V3 if f != "movbe"], Precision.FP32, "lacks movbe"),
        (["x86_64"], _V4, Precision.FP16, "fp16 is for Arm"),
        (["armeabi-v7a"], _V82, Precision.FP32, "no 64-bit programs .*armeabi-v7a"),
        ([], [], Precision.FP32, "none at all"),
    ],
)
def test_no_target_whose_instructions_are_not_all_there(
    abis: list[str], features: list[str], precision: Precision, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        choose_target(abis, features, precision)


def _clusters(*cores: tuple[int, int, str], online: str | None = None) -> str:
    lines = [] if online is None else [f"/sys/devices/system/cpu/online {online}"]
    for core, khz, related in cores:
        folder = f"/sys/devices/system/cpu/cpu{core}/cpufreq"
        lines += [f"{folder}/cpuinfo_max_freq {khz}", f"{folder}/related_cpus {related}"]
    return "\n".join(lines)


def test_the_fastest_cluster_comes_first() -> None:
    cores = [
        *((i, 1_800_000, "0 1 2 3") for i in range(4)),
        (4, 2_400_000, "4 5"),
        (5, 2_400_000, "4 5"),
        (6, 2_900_000, "6"),
    ]
    assert parse_clusters(_clusters(*cores)) == ((6,), (4, 5), (0, 1, 2, 3))
    assert parse_clusters(_clusters(*cores, online="0-5")) == ((4, 5), (0, 1, 2, 3))


def test_clusters_of_equal_clocks_are_told_apart_by_their_policies() -> None:
    assert parse_clusters(_clusters((0, 2_000_000, "0"), (1, 2_000_000, "1"))) == ((0,), (1,))


@pytest.mark.parametrize(
    "values", ["", "nonsense", "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq -5", "\0" * 99]
)
def test_a_phone_that_tells_nothing_has_no_clusters(values: str) -> None:
    assert parse_clusters(values) == ()


def _parts(**changes: str) -> dict[str, str]:
    properties = (
        "[ro.product.model]: [Pixel 7]\n[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a]\n[ro.soc.model]: [GS201]\n"
        "[ro.soc.manufacturer]: [Google]\n[ro.build.version.release]: [14]\n[ro.serialno]: [28091]\n"
    )
    clusters = _clusters(*((i, 1_800_000, "0 1 2 3") for i in range(4)), (6, 2_850_000, "6 7"), (7, 2_850_000, "6 7"))
    return {
        "properties": properties, "cpuinfo": f"Features : {' '.join(_V82)}\n", "clusters": clusters, "allowed": "",
    } | changes  # fmt: skip


def test_facts_of_a_phone() -> None:
    facts = make_facts(_parts(), serial="28091", model=None, precision=Precision.FP32, cpu=None, threads=1)
    assert (facts.serial, facts.model, facts.target, facts.emulated) == ("28091", "Pixel 7", NEON.name, False)
    assert (facts.cpu, facts.cpus, facts.threads) == (6, (), 1)
    assert facts.details["clusters"] == [[6, 7], [0, 1, 2, 3]]
    assert (facts.details["soc"], facts.details["android"], facts.details["abi"]) == ("GS201", "14", "arm64-v8a")
    assert "asimdhp" in facts.details["features"]


def test_threads_get_the_fastest_cores_beginning_with_the_asked_one() -> None:
    several = make_facts(_parts(), serial="s", model="m", precision=Precision.FP32, cpu=None, threads=3)
    assert (several.cpu, several.cpus, several.model) == (6, (6, 7, 0), "m")
    asked = make_facts(_parts(), serial="s", model="m", precision=Precision.FP32, cpu=2, threads=2)
    assert (asked.cpu, asked.cpus) == (2, (2, 6))


def test_only_cores_that_the_shell_may_use() -> None:
    parts = _parts(allowed="Cpus_allowed_list:\t0-3")
    facts = make_facts(parts, serial="s", model=None, precision=Precision.FP32, cpu=None, threads=1)
    assert facts.cpu == 0
    with pytest.raises(Refused, match="core 6 is asked for, and this phone's cores are 0, 1, 2, 3"):
        make_facts(parts, serial="s", model=None, precision=Precision.FP32, cpu=6, threads=1)
    with pytest.raises(Refused, match="5 threads are asked for, and this phone has 4 cores"):
        make_facts(parts, serial="s", model=None, precision=Precision.FP32, cpu=None, threads=5)


def test_what_answers_nothing_is_no_phone() -> None:
    with pytest.raises(Refused, match="is it an Android phone"):
        make_facts({}, serial="s", model=None, precision=Precision.FP32, cpu=None, threads=1)


def test_a_hostile_model_is_one_printable_line() -> None:
    hostile = "evil'\"$(id)\n\x1b[31m;rm -rf /\r" + "x" * 1000
    parts = _parts(properties=f"[ro.product.model]: [{hostile}]\n[ro.product.cpu.abi]: [arm64-v8a]\n")
    model = make_facts(parts, serial="s", model=None, precision=Precision.FP32, cpu=None, threads=1).model
    assert model.isprintable() and len(model) <= 120 and model.startswith("evil'\"$(id) ")
    assert clean("\n\t") == ""
