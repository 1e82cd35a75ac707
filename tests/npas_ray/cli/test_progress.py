from __future__ import annotations

import io
import re

import pytest

from npas_ray.cli.progress import LiveProgress, PlainProgress, Stopwatch, make_progress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO) -> list[str]:
    """Lines without their times."""
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_pace_counts_from_the_first_update_of_the_session() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    assert str(stopwatch.pace(30, 48)) == ""  # resumed at 30
    clock.now += 60
    pace = stopwatch.pace(36, 48)
    assert pace.per_minute == pytest.approx(6)
    assert pace.left_s == pytest.approx(120)
    assert str(pace) == "6.0/min, 2 min 00 s left"


def test_plain_lines_are_few_and_the_last_one_is_never_lost() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock=clock)
    progress.phase("searching")
    for done in range(11):
        progress.update(done, 20, over_budget=2, failed=0, best="90 % at 0.1 ms")
        clock.now += 1
    progress.close()
    lines = said(stream)
    assert lines[0] == "searching"
    assert lines[1] == "0/20 candidates, 2 over budget, best 90 % at 0.1 ms"
    assert len(lines) == 4
    assert lines[-1] == "10/20 candidates, 2 over budget, best 90 % at 0.1 ms (60.0/min, 10 s left)"


def test_hostile_text_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.log("phone \x1b[2J\n[red]gone[/red]")
    assert said(stream) == ["phone \\x1b[2J\\n[red]gone[/red]"]


def test_live_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    stream = Terminal()
    progress = make_progress(stream)
    assert isinstance(progress, LiveProgress)
    progress.phase("searching")
    progress.update(3, 48, over_budget=1, failed=1, best="90 % at 0.1 ms [red]")
    progress.log("a line that stays [bold]\x07")
    progress.close()
    text = stream.getvalue()
    assert "3/48 candidates, 1 over budget, 1 failed, best 90 % at 0.1 ms [red]" in text
    assert "a line that stays [bold]\\x07\n" in text


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "CI": "true"}])
def test_plain_where_the_cursor_cannot_move(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert isinstance(make_progress(Terminal()), PlainProgress)
    assert isinstance(make_progress(io.StringIO()), PlainProgress)
