"""HTML pages of one file each: nothing is loaded from elsewhere; light or dark as the reader is."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib
from matplotlib.figure import Figure

# What a drawing's colours are on a page: ink is as light or dark as the text, paper as the page.
_THEME = {
    "#000000": "currentColor",
    "#2b2f36": "currentColor",
    "#ffffff": "var(--paper)",
    "#e4e7ea": "var(--grid)",
}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; --paper: light-dark(#fff, #16181c);
  --grid: light-dark(#e4e7ea, #33373e) }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em;
  color: light-dark(#222, #ddd); background: var(--paper) }}
h2 {{ margin: 1.8em 0 .3em; font-size: 18px }}
table {{ border-collapse: collapse }}
th, td {{ text-align: right; padding: 3px 14px;
  border-bottom: 1px solid light-dark(#e2e8f0, #333) }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0 }}
.wide {{ overflow-x: auto }}
img {{ max-width: 100% }}
p {{ color: light-dark(#4a5568, #a0aec0); margin: .2em 0 .6em }}
{style}</style>
<h1>{title}</h1>
{body}
</html>
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole page.

    Args:
        title: text.
        body: HTML below the title.
        style: CSS of this page alone.
    """
    return _PAGE.format(title=escape(title), body=body, style=style)


def sections(contents: Iterable[tuple[str, str]]) -> str:
    """HTML under headings of text."""
    return "\n".join(f"<h2>{escape(head)}</h2>\n{content}" for head, content in contents)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of text, the first of each row to the left."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def png(figure: Figure, transparent: bool = False) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130, transparent=transparent)
    return file.getvalue()


def svg(figure: Figure) -> str:
    """A figure as an SVG file; equal figures, equal text."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "page"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def drawing(image: str, name: str, alt: str) -> str:
    """An SVG of matplotlib's inside the page, light or dark as the page is.

    Args:
        image: the file's text.
        name: of no other drawing on the page.
        alt: what it shows.
    """
    width_pt, root = re.search(r'width="([\d.]+)pt"', image)[1], image.index("<svg")
    inner = image[image.index(">", root) + 1 :]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inner, flags=re.DOTALL)
    # Drawings use the same names within.
    inner = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", inner)
    inner = inner.replace("xlink:href", "href")
    for color, themed in _THEME.items():
        inner = inner.replace(color, themed)
    view = re.search(r'viewBox="[^"]+"', image)[0]
    return (
        f'<svg class="drawing" role="img" aria-label="{escape(alt)}" {view} '
        f'style="max-width:{float(width_pt):.0f}pt;fill:currentColor;stroke-linejoin:round">{inner}'
    )


def picture(image: bytes) -> str:
    """A PNG inside the page."""
    return f'<img alt="" src="{_address(image)}">'


def picture_by_theme(light: bytes, dark: bytes) -> str:
    """Two PNGs inside the page, of which the reader sees the one for a light or a dark page."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_address(dark)}">'
        f"{picture(light)}</picture>"
    )


def _address(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
