"""`npas status`, `npas report`, `npas version` and the command as a process."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from npas_ray.cli import main
from npas_ray.runs import verification

MakeRun = Callable[..., Path]


def npas(*argv: str, cwd: Path | None = None) -> list[str]:
    return [sys.executable, "-m", "npas_ray", *argv]


def test_status_of_an_unfinished_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(candidates=9)
    assert main(["status", str(run_dir)]) == 0
    out = capsys.readouterr().out
    assert "unfinished" in out
    assert "9 of 48 concluded" in out
    assert main(["status", str(run_dir), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["proposed"], data["wanted"], data["state"]) == (9, 48, "unfinished")
    assert data["done"] + data["over_budget"] + data["failed"] == data["concluded"] == 9


def test_status_of_a_running_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(candidates=9)
    with (run_dir / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["status", str(run_dir)]) == 0
    assert "running" in capsys.readouterr().out


def test_a_run_is_found_by_its_name(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("runs/digits-demo", candidates=3)
    monkeypatch.chdir(tmp_path)
    assert main(["status", "digits-demo"]) == 0
    assert "runs/digits-demo" in capsys.readouterr().out


def test_report_can_be_built_again(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run()
    assert main(["report", str(run_dir), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["reports"]
    before = {name: Path(path).read_bytes() for name, path in paths.items()}
    Path(paths["candidates_csv"]).unlink()
    assert main(["report", str(run_dir)]) == 0
    assert Path(paths["candidates_csv"]).read_bytes() == before["candidates_csv"]


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_journal_is_exit_code_4(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], command: str, size: int
) -> None:
    run_dir = make_run()
    journal = run_dir / "journal.sqlite"
    journal.write_bytes(journal.read_bytes()[:size])
    assert main([command, str(run_dir)]) == 4
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"npas: error: {journal}")


def test_verify_before_anything_is_shipped(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run()
    assert main(["verify", str(run_dir)]) == 2
    assert f"npas: error: {run_dir} has shipped nothing yet" in capsys.readouterr().err


@pytest.mark.parametrize("passed", [True, False])
def test_verify_says_what_was_found(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool
) -> None:
    found = verification.Verification("local", 1000, 1.0 if passed else 0.99, 0.92, 0.92, 0.92)
    monkeypatch.setattr(verification, "verify_run", lambda run_dir, **_: [found])
    run_dir = make_run()
    assert main(["verify", str(run_dir)]) == (0 if passed else 1)
    assert ("NOT VERIFIED" in capsys.readouterr().out) is not passed
    assert main(["verify", str(run_dir), "--json"]) == (0 if passed else 1)
    data = json.loads(capsys.readouterr().out)
    assert (data["passed"], data["reported_accuracy"]) == (passed, 0.92)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)
    assert versions["ray"].startswith("2.")
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"npas {versions['npas'] or 'not installed'}\n"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from npas_ray.cli import main\n"
        "try: main(['search', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'tvm', 'pandas', 'numpy', 'pydantic', 'rich', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "--dry-run" in ended.stdout


def test_a_reader_that_goes_away_is_no_error(make_run: MakeRun) -> None:
    process = subprocess.Popen(
        npas("status", str(make_run()), "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_poor_locale_is_enough(make_run: MakeRun) -> None:
    run_dir = make_run(model="Größe", budget_ms=None)
    ended = subprocess.run(
        npas("report", str(run_dir)), env={"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"Pareto front on Gr\xf6\xdfe" in ended.stdout
