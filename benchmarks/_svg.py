"""Two kinds of plots as SVG text, readable on light and dark pages: bars in groups, and lines over a numeric axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

from npas_ray.reports.scales import Scale

OURS = "#d9480f"
COLOURS = ("#1c7ed6", "#2f9e44", "#ae3ec9", "#f08c00", "#0c8599", "#868e96", "#5c940d", "#e64980")
WIDTH = 860
TEXT = 'font-family="system-ui, sans-serif" fill="#7a8088"'


def bars(title: str, groups: Mapping[str, Mapping[str, float]], *, unit: str, mark: float | None = None) -> str:
    """Horizontal bars: group -> {label -> value}. A line at `mark`; a bar called "ours..." stands out."""
    names = list(dict.fromkeys(label for group in groups.values() for label in group))
    colours = _colours(names)
    row, gap, left, top = 15, 16, 150, 64
    height = top + sum(row * len(group) + gap for group in groups.values()) + 24
    highest = max(value for group in groups.values() for value in group.values())
    scale = Scale(0, max(highest, mark or 0) * 1.02, left, WIDTH - 70)
    parts = [_text(14, 22, title, size=15), *_legend(names, colours)]
    y = top
    for group, values in groups.items():
        parts.append(_text(left - 10, y + row * len(values) / 2 + 4, group, anchor="end"))
        for label, value in values.items():
            parts.append(
                f'<rect x="{left}" y="{y}" width="{scale(value) - left:.1f}" height="{row - 3}" rx="2" '
                f'fill="{colours[label]}"><title>{escape(f"{group}, {label}: {value:.3g} {unit}")}</title></rect>'
            )
            parts.append(_text(scale(value) + 5, y + row - 5, f"{value:.3g}", size=10))
            y += row
        y += gap
    for tick in scale.ticks(8):
        parts += [
            _line((scale(tick), top - 6), (scale(tick), y), faint=True),
            _text(scale(tick), y + 12, f"{tick:g}", 10, "middle"),
        ]
    if mark is not None:
        parts.append(_line((scale(mark), top - 6), (scale(mark), y)))
    parts.append(_text(WIDTH - 14, y + 12, unit, size=10, anchor="end"))
    return _document(title, height, parts)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    axes: tuple[str, str],
    diagonal: str | None = None,
    height: int = 420,
) -> str:
    """Points joined by lines: name -> (x, y) in the order of x. `diagonal` labels the line y = x."""
    colours = _colours(list(series))
    points = [point for line in series.values() for point in line]
    x = Scale(0, max(px for px, _ in points) * 1.04, 60, WIDTH - 30)
    y = Scale(0, max(py for _, py in points) * 1.06, height - 50, 74)
    parts = [_text(14, 22, title, size=15), *_legend(list(series), colours)]
    for tick in y.ticks(6):
        parts += [
            _line((60, y(tick)), (WIDTH - 30, y(tick)), faint=True),
            _text(52, y(tick) + 4, f"{tick:g}", 10, "end"),
        ]
    for tick in x.ticks(10):
        parts.append(_text(x(tick), height - 34, f"{tick:g}", 10, "middle"))
    parts += [_text(WIDTH / 2, height - 14, axes[0], 11, "middle"), _text(14, 64, axes[1], 11)]
    if diagonal is not None:
        end = min(x.high, y.high)
        parts += [
            _line((x(0), y(0)), (x(end), y(end)), dashed=True),
            _text(x(end) - 8, y(end) + 14, diagonal, 10, "end"),
        ]
    for name, line in series.items():
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        for px, py in line:
            words = f"<title>{escape(f'{name}: {px:g} -> {py:.3g}')}</title>"
            parts.append(f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" fill="{colours[name]}">{words}</circle>')
    return _document(title, height, parts)


def _colours(names: Sequence[str]) -> dict[str, str]:
    others = cycle(COLOURS)
    return {name: OURS if name.startswith("ours") else next(others) for name in names}


def _legend(names: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    parts, x = [], 14.0
    for name in names:
        parts += [
            f'<rect x="{x:.0f}" y="34" width="10" height="10" rx="2" fill="{colours[name]}"/>',
            _text(x + 14, 43, name, 11),
        ]
        x += 28 + 6.2 * len(name)
    return parts


def _text(x: float, y: float, words: str, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {TEXT}>{escape(words)}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], *, faint: bool = False, dashed: bool = False) -> str:
    style = 'stroke-opacity="0.25"' if faint else 'stroke-dasharray="5 4"' if dashed else 'stroke-width="1.5"'
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#7a8088" {style}/>'


def _document(title: str, height: float, parts: Sequence[str]) -> str:
    frame = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *parts, "</svg>"]) + "\n"
