"""Tables of a comparison: the same cells for a page, as Markdown and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Args:
        text: the number or the words.
        detail: what belongs to it, such as its interval.
        published: what its authors or others report in its place.
        note: the number of the note that says where that is published.
    """

    text: str
    detail: str = ""
    published: str = ""
    note: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first cell of each row names it.

    Args:
        name: of the files.
        caption: what is in it.
        heads: with what is measured in what unit.
        rows: as many cells each.
        notes: from 1, where what is published is from.
        plain: the columns of the CSV file, and their values; the texts of the cells unless given.
    """

    name: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    plain: Sequence[dict[str, Any]] = ()

    def html(self) -> str:
        """Inside of what scrolls where the page is too narrow."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.heads)
        body = "\n".join(
            f'<tr><th scope="row">{_html(first)}</th>'
            + "".join(f"<td>{_html(cell)}</td>" for cell in others)
            + "</tr>"
            for first, *others in self.rows
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f'<div class="wide" tabindex="0" role="region" aria-label="{escape(self.caption)}">'
            f"<table><caption>{escape(self.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
            f"<tbody>{body}</tbody></table></div>"
            + (f'\n<ol class="notes">{notes}</ol>' if notes else "")
        )

    def markdown(self) -> str:
        """Under its caption, with the notes below."""
        lines = [self.heads, ["---"] * len(self.heads), *(map(_words, row) for row in self.rows)]
        table = "\n".join(f"| {' | '.join(map(_safe, line))} |" for line in lines)
        notes = "\n".join(f"{number}. {note}" for number, note in enumerate(self.notes, start=1))
        return f"{self.caption}\n\n{table}\n" + (f"\n{notes}\n" if notes else "")

    def csv(self) -> str:
        """One line a row."""
        if self.plain:
            return _csv(self.plain[0].keys(), (row.values() for row in self.plain))
        return _csv(self.heads, ((_words(cell) for cell in row) for row in self.rows))


def of_texts(name: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of nothing but texts."""
    return Table(name, caption, heads, [[Cell(text) for text in row] for row in rows])


def _html(cell: Cell) -> str:
    note = f"<sup>{cell.note}</sup>" if cell.note else ""
    missing = ' class="missing"' if cell.text == NOT_RUN else ""
    text = escape(cell.text)
    if text.startswith("https://"):
        text = f'<a href="{text}">{text.removeprefix("https://")}</a>'
    return (
        f"<span{missing}>{text}</span>"
        + (f"<small>{escape(cell.detail)}</small>" if cell.detail else "")
        + (f"<em>{escape(cell.published)}{note}</em>" if cell.published else "")
    )


def _words(cell: Cell) -> str:
    note = f" [{cell.note}]" if cell.note else ""
    return (
        cell.text
        + (f" ({cell.detail})" if cell.detail else "")
        + (f"; published {cell.published}{note}" if cell.published else "")
    )


def _safe(text: str) -> str:
    """Text that ends no cell of Markdown's."""
    return text.replace("|", r"\|").replace("\n", " ")


def _csv(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return file.getvalue()
