"""Every wrong input gets one clear line for each problem, and a non-zero exit code. Nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from npas_ray.cli import main


def refuse(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """Runs npas, which must refuse with exit code 2 and say nothing on stdout; gives its lines."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert all(line.startswith("npas: error: ") for line in lines)
    return [line.removeprefix("npas: error: ") for line in lines]


def refuse_yaml(capsys: pytest.CaptureFixture[str], path: Path, text: str | bytes, *argv: str) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    lines = refuse(capsys, "search", str(path), "--dry-run", *argv)
    return [line.replace(str(path), "search.yaml") for line in lines]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "search.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "search.yaml: the file is empty; expected a configuration (see examples/demo.yaml)"),
        ("# nothing\n", "search.yaml: the file is empty; expected a configuration (see examples/demo.yaml)"),
        ("seed: 1\nspace: {", "search.yaml:2:9: not YAML: while parsing a flow node: expected the node content"),
        ("\tseed: 1", "search.yaml:1:1: not YAML: while scanning for the next token: found character '\\t'"),
        ("- 1\n- 2\n", "search.yaml: expected a mapping (key: value); got [1, 2]"),
        ("just text", "search.yaml: expected a mapping (key: value); got 'just text'"),
        ("seed: 1\nname: a\nseed: 2\n", "search.yaml:3: seed: given twice, first in line 1"),
        ("sed: 1\n", "search.yaml:1: sed: unknown key; did you mean 'seed'?"),
        ("seed: 1\nepochs: 3\n", "search.yaml:2: epochs: unknown key; did you mean 'training.epochs'?"),
        ("training:\n  epoch: 3\n", "search.yaml:2: training.epoch: unknown key; did you mean 'epochs'?"),
        (
            "training: {zzz: 3}",
            "search.yaml:1: training.zzz: unknown key; expected one of epochs, ladder, keep, workers, final_epochs",
        ),
        ("<<: {seed: 1}", "search.yaml:1: <<: unknown key"),
        (
            "objective:\n  budgets_ms:\n    local: -1\n",
            "search.yaml:3: objective.budgets_ms.local: expected a number > 0; got -1",
        ),
        (
            "objective: {budgets_ms: {local: 0}}",
            "search.yaml:1: objective.budgets_ms.local: expected a number > 0; got 0",
        ),
        (
            "objective: {budgets_ms: {local: .nan}}",
            "search.yaml:1: objective.budgets_ms.local: expected a number > 0; got nan",
        ),
        (
            "objective: {budgets_ms: {local: .inf}}",
            "search.yaml:1: objective.budgets_ms.local: expected a number > 0; got inf",
        ),
        (
            f"objective: {{budgets_ms: {{local: 1{'0' * 400}}}}}",
            "search.yaml:1: objective.budgets_ms.local: expected a number > 0; got a number of more than 60 digits",
        ),
        (
            "objective: {budgets_ms: {local: 3 ms}}",
            "search.yaml:1: objective.budgets_ms.local: expected a number > 0; got '3 ms'",
        ),
        (
            "objective: {budgets_ms: {pixel: 3}}",
            "search.yaml:1: objective.budgets_ms.pixel: expected a model among the devices: local; got 'pixel'",
        ),
        ("objective: {budgets_ms: 3}", "search.yaml:1: objective.budgets_ms: expected a mapping (name: value); got 3"),
        ("objective: {alpha: -.5}", "search.yaml:1: objective.alpha: expected a number >= 0; got -0.5"),
        (
            "space:\n  operators:\n  - 1x1\n  - 3x4\n",
            "search.yaml:4: space.operators[1]: expected one of 1x1, 3x3, 3x3dw+1x1, 1x1+3x3dw+1x1, skip; got '3x4'; "
            "did you mean '3x3'?",
        ),
        (
            "space: {operators: []}",
            "search.yaml:1: space.operators: expected a list of operators, at least one; got []",
        ),
        (
            "space: {operators: 3x3}",
            "search.yaml:1: space.operators: expected a list of operators, at least one; got '3x3'",
        ),
        ("space: {operators: [3x3, 3x3]}", "search.yaml:1: space.operators[1]: expected every item once; got '3x3'"),
        ("space: {schemes: [blockpunched]}", "did you mean 'block-punched'?"),
        (
            "space: {backbone: digts}",
            "search.yaml:1: space.backbone: expected 'digits'; got 'digts'; did you mean 'digits'?",
        ),
        (
            "space: {rates: [1, 0.5]}",
            "search.yaml:1: space.rates[1]: expected a number >= 1 (weights before / weights kept",
        ),
        ("space: {rates: [true]}", "got true"),
        ("space: {layers: {blok3: {rates: [1]}}}", "did you mean 'block3'?"),
        (
            "space: {layers: {block3: {rtes: [1]}}}",
            "search.yaml:1: space.layers.block3.rtes: unknown key; did you mean 'rates'?",
        ),
        ("space:\n  operators: [skip]\n", "skip"),  # no legal candidate: blocks that change the shape cannot be skipped
        (
            "search: {policy: nps}",
            "search.yaml:1: search.policy: expected one of npas, paper, random, local, evolution, optuna-tpe,"
            " optuna-nsga2, optuna-gp, tune; got 'nps'; did you mean 'npas'?",
        ),
        ("search: {policy: tune}", "settings of searcher 'tune': searcher names a class, such as 'ray.tune.search"),
        (
            "search: {policy: tune, settings: {searcher: 'nowhere:Nobody'}}",
            "settings of searcher 'tune': searcher 'nowhere:Nobody' cannot be imported: No module named 'nowhere'",
        ),
        (
            "search: {policy: optuna-tpe, settings: {n_startup_trials: 0}}",
            "settings of searcher 'optuna-tpe': n_startup_trials is a whole number >= 1, got 0",
        ),
        (
            "search: {candidates: yes}",
            "search.yaml:1: search.candidates: expected a whole number in 1..1000000; got 'yes'",
        ),
        (
            "search: {candidates: true}",
            "search.yaml:1: search.candidates: expected a whole number in 1..1000000; got true",
        ),
        (
            "search: {candidates: 4.0}",
            "search.yaml:1: search.candidates: expected a whole number in 1..1000000; got 4.0",
        ),
        (
            'search: {candidates: "4"}',
            "search.yaml:1: search.candidates: expected a whole number in 1..1000000; got '4'",
        ),
        ("search: {settings: [1]}", "search.yaml:1: search.settings: expected a mapping"),
        ("search: {policy: paper, settings: {pol_size: 3}}", "pool_size"),
        (
            "training: 5",
            "search.yaml:1: training: expected a mapping with the keys epochs, ladder, keep, workers,"
            " final_epochs; got 5",
        ),
        (
            "training: {workers: some}",
            "search.yaml:1: training.workers: expected auto or a whole number in 1..1024; got 'some'",
        ),
        (
            "devices: [{kind: loca}]",
            "search.yaml:1: devices[0].kind: expected one of local, adb, farm; got 'loca'; did you mean 'local'?",
        ),
        ("devices: [{cpu: 1}]", "search.yaml:1: devices[0].kind: expected one of local, adb, farm; got nothing"),
        ("devices: []", "search.yaml:1: devices: expected a list of devices, at least one; got []"),
        (
            "cluster: {address: not an address}",
            "search.yaml:1: cluster.address: expected 'local', 'auto' or the address",
        ),
        (
            "measurement: {min_samples: 90000}",
            "measurement.min_samples: expected at most max_samples, which is 20000; got 90000",
        ),
        ("measurement: {deadline_s: 0.1}", "expected more than warmup_s + min_time_s, which is 0.25; got 0.1"),
        (
            "name: a/b",
            "search.yaml:1: name: expected a name of up to 64 letters, digits, dots, dashes, underscores; got 'a/b'",
        ),
        ("name: ../x", "search.yaml:1: name: expected a name"),
        ("seed: !!python/object/apply:os.system [true]", "the tag '!!python/object/apply:os.system' is not allowed"),
        ("seed: !!int x", "search.yaml:1: expected a number; got 'x'"),
        ("a: &a [*a]", "search.yaml:1: nested more than 32 deep"),
        ("[" * 200_000, "not YAML: nested more than 32 deep"),
        ("? [1]\n: 2", "search.yaml:1: expected a name as the key; got a list or a mapping"),
        ("seed: 1\n---\nseed: 2\n", "search.yaml:2:1: not YAML: expected a single document"),
        ("seed: \x01", "search.yaml:1: not YAML: the character U+0001 is not allowed"),
        (b"seed: 1\nname: \xff\xfe", "search.yaml:2: expected UTF-8 text; got byte 0xff"),
        (b"\x00" * (300 * 1024), "search.yaml: expected at most 256 KiB of YAML; got more"),
    ],
)
def test_configuration(capsys: pytest.CaptureFixture[str], config: Path, text: str | bytes, expected: str) -> None:
    lines = refuse_yaml(capsys, config, text)
    assert len(lines) == 1
    assert expected in lines[0]


def test_alias_bomb_is_bounded(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    [line] = refuse_yaml(capsys, config, "\n".join(levels))
    assert "more than 10,000 values (aliases are counted each time)" in line


def test_several_problems_are_several_lines_in_the_order_of_the_file(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    lines = refuse_yaml(capsys, config, "training: {epochs: -1}\nsed: 3\nseed: 1.5\n")
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]


def test_terminal_escapes_are_spelled_out(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    [line] = refuse_yaml(capsys, config, 'name: "\\e[31mred"')
    assert "\x1b" not in line
    assert "\\x1b[31mred" in line


def test_missing_file(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert refuse(capsys, "search", str(config)) == [f"{config}: there is no such file"]


def test_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert refuse(capsys, "search", str(tmp_path)) == [f"{tmp_path}: expected a YAML file; got a directory"]


def test_file_that_leads_nowhere(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.symlink_to(config)
    assert refuse(capsys, "search", str(config)) == [f"{config}: cannot be read: Too many levels of symbolic links"]


def test_unreadable_file(
    ordinary_user: Callable[[], AbstractContextManager[None]], capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text("seed: 1")
    config.chmod(0)
    with ordinary_user():
        lines = refuse(capsys, "search", str(config))
    assert lines == [f"{config}: cannot be read: Permission denied"]


def test_endless_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(capsys, "search", "/dev/zero") == ["/dev/zero: expected at most 256 KiB of YAML; got more"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "--set seed: expected path=value, such as training.epochs=3"),
        ("=3", "--set =3: expected path=value, such as training.epochs=3"),
        ("epochs=3", "there is no 'epochs' in a configuration; did you mean 'training.epochs'?"),
        ("trainng.epochs=3", "there is no 'trainng.epochs' in a configuration; did you mean 'training.epochs'?"),
        ("training.epocs=3", "there is no 'training.epocs' in a configuration; did you mean 'training.epochs'?"),
        ("seed.x=3", "there is no 'seed.x' in a configuration; seed is a single value"),
        ("seed=[", "--set seed=[:1:2: not YAML"),
        ("seed=", "--set seed=: seed: expected a whole number in 0..4294967295; got null"),
        ("seed=x", "--set seed=x: seed: expected a whole number in 0..4294967295; got 'x'"),
        ("devices[3].cpu=1", "devices is a list of 1 in the file; set the whole list instead"),
        (
            "devices.0.cpu=x",
            "--set devices.0.cpu=x: devices[0].cpu: expected auto or a whole number in 0..4095; got 'x'",
        ),
        ("objective.budgets_ms.Pixel 6.1=3", "objective.budgets_ms.Pixel 6.1: expected a model among the devices"),
    ],
)
def test_override(capsys: pytest.CaptureFixture[str], config: Path, override: str, expected: str) -> None:
    [line] = refuse_yaml(capsys, config, "seed: 1\n", "--set", override)
    assert expected in line


def test_run_directory_is_a_file(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    lines = refuse_yaml(capsys, config, "seed: 1", "--run-dir", str(config))
    assert lines == ["search.yaml is a file; a run needs a directory"]


@pytest.mark.parametrize("command", ["status", "report", "verify"])
def test_no_such_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refuse(capsys, command, "digits") == ["there is no run at digits"]
    (tmp_path / "runs" / "digits-demo").mkdir(parents=True)
    (tmp_path / "runs" / "digits-demo" / "journal.sqlite").touch()
    assert refuse(capsys, command, "digits-dmo") == ["there is no run at digits-dmo; did you mean 'runs/digits-demo'?"]
    assert refuse(capsys, command, ".") == [". is not a run: it has no journal.sqlite"]


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["serach"], ["search"], ["search", "a", "--no-such-flag"]):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
    assert "usage: npas" in capsys.readouterr().err


def test_a_precision_that_the_machine_lacks(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "asimdhp" in Path("/proc/cpuinfo").read_text().split():
        pytest.skip("this machine computes at fp16")
    lines = refuse_yaml(capsys, config, "name: x\ndevices: [{kind: local}, {kind: local, precision: fp16}]\n")
    assert len(lines) == 1
    assert lines[0].startswith("devices[1].precision: precision fp16 ")
    assert lines[0].endswith("choose precision fp32")
