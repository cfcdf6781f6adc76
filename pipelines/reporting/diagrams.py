"""Diagrams of a comparison in HTML, which wrap where a page is narrow: the way of the data, and
where the time went."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import NamedTuple

from pipelines.stage_log import StageRecord

STAGES = ("prepare", "tune", "train", "evaluate", "export")
# Of all the time in which something was done: a pause longer than the first is cut to the second.
_LONGEST_PAUSE, _CUT_PAUSE = 0.06, 0.02
# Of the axis: where a time of day would not fit any more, and what one takes on a narrow page.
_LATE, _MARK_ROOM = 0.85, 0.16


class Step(NamedTuple):
    """One box of the pipeline.

    Args:
        name: of what is done.
        facts: what it came to here, a line each.
        done: whether it was done at all.
    """

    name: str
    facts: Sequence[str]
    done: bool = True


def pipeline(steps: Sequence[Step]) -> str:
    """Boxes in their order, an arrow from each to the next."""
    boxes = "".join(
        f"<li{'' if step.done else ' class=idle'}><h3>{escape(step.name)}</h3>"
        + "".join(f"<p>{escape(fact)}</p>" for fact in step.facts)
        + "</li>"
        for step in steps
    )
    return f'<ol class="pipeline">{boxes}</ol>'


class Bar(NamedTuple):
    """Where a stage stands on the axis of a Gantt chart, in shares of its length."""

    left: float
    width: float


def gantt(done: Sequence[tuple[str, StageRecord]]) -> str:
    """A line for each folder, a bar for each time that a stage worked on it; pauses are cut.

    Args:
        done: the name of a folder, and a record of it that has ended; at least one.
    """
    busy = _busy([each for _, each in done])
    rows = []
    for name in dict.fromkeys(name for name, _ in done):
        bars = "".join(_bar(each, busy) for of, each in done if of == name)
        rows.append(f'<div class="row"><span>{escape(name)}</span><div>{bars}</div></div>')
    places = ((start, bar_of(start, end, busy).left) for start, end in busy)
    marks = "".join(itertools.starmap(_mark, _apart(places)))
    stages = [stage for stage in STAGES if any(each.stage == stage for _, each in done)]
    legend = "".join(f'<li><b class="{stage}"></b>{stage}</li>' for stage in stages)
    axis = f'<div class="row axis"><span>UTC</span><div>{marks}</div></div>'
    return (
        f'<ul class="key">{legend}</ul>\n'
        f'<div class="gantt" role="img" aria-label="{escape(_told(done))}">'
        f"{''.join(rows)}{axis}</div>"
    )


def _apart(places: Iterable[tuple[datetime, float]]) -> Iterator[tuple[datetime, float]]:
    """Of moments along the axis, those whose names have room beside the one before."""
    last = -math.inf
    for moment, left in places:
        if left - last >= _MARK_ROOM:
            yield moment, left
            last = left


def _mark(moment: datetime, left: float) -> str:
    """A time of day on the axis; near its end, to the left of the place."""
    late = ' class="late"' if left > _LATE else ""
    return f'<i{late} style="left:{100 * left:.2f}%">{moment:%H:%M}</i>'


def bar_of(start: datetime, end: datetime, busy: Sequence[tuple[datetime, datetime]]) -> Bar:
    """Where the time from `start` to `end` stands, given the stretches in which work was done."""
    worked = sum((stop - begin for begin, stop in busy), timedelta())
    total = worked * (1 + _CUT_PAUSE * (len(busy) - 1))

    def place(moment: datetime) -> float:
        before = sum(
            (min(stop, moment) - begin for begin, stop in busy if begin < moment), timedelta()
        )
        pauses = sum(begin <= moment for begin, _ in busy) - 1
        return (before + worked * _CUT_PAUSE * pauses) / total

    left = place(start)
    return Bar(left, place(end) - left)


def _end(each: StageRecord) -> datetime:
    return each.began + timedelta(seconds=each.wall_s)


def _busy(records: Sequence[StageRecord]) -> list[tuple[datetime, datetime]]:
    """The stretches in which something was done, short pauses being part of them."""
    spans = sorted((each.began.astimezone(UTC), _end(each).astimezone(UTC)) for each in records)
    longest = _LONGEST_PAUSE * timedelta(seconds=sum(each.wall_s for each in records))
    busy = [spans[0]]
    for start, end in spans[1:]:
        if start - busy[-1][1] > longest:
            busy.append((start, end))
        else:
            busy[-1] = (busy[-1][0], max(busy[-1][1], end))
    return busy


def _bar(each: StageRecord, busy: Sequence[tuple[datetime, datetime]]) -> str:
    bar = bar_of(each.began, _end(each), busy)
    title = f"{each.stage}: {duration(each.wall_s)}, {duration(each.cpu_s)} of processor time"
    return (
        f'<b class="{each.stage}" title="{title}" '
        f'style="left:{100 * bar.left:.2f}%;width:{100 * bar.width:.2f}%"></b>'
    )


def _told(done: Sequence[tuple[str, StageRecord]]) -> str:
    """The chart in words."""
    parts = []
    for name, group in itertools.groupby(done, key=lambda pair: pair[0]):
        took = ", ".join(f"{each.stage} {duration(each.wall_s)}" for _, each in group)
        parts.append(f"{name}: {took}")
    return f"Where the time went. {'; '.join(parts)}"


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min` or `2.1 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
