"""What cleaning found, as one HTML file to look through: what was dropped, and why."""

from collections import defaultdict
from collections.abc import Callable
from html import escape

from pipelines.config import KINDS
from pipelines.data.cleaning import Finding
from pipelines.reporting.page import page

IMAGES_A_KIND = 48
_DONE = {"drop": "dropped", "rewrite": "rewritten", "keep": "kept"}

_STYLE = """h2 small { font-weight: normal; color: light-dark(#666, #999) }
.drop { color: light-dark(#b3261e, #f2b8b5) } .rewrite { color: light-dark(#8a5a00, #f0c36d) }
.keep { color: light-dark(#33691e, #a5d6a7) }
.sheet { display: flex; flex-wrap: wrap; gap: 12px }
figure { margin: 0; width: 240px; border: 1px solid light-dark(#ddd, #444); border-radius: 6px;
  padding: 8px }
figure div { display: flex; gap: 4px; height: 112px; align-items: center }
img, .none { max-width: 112px; max-height: 112px }
.none { width: 112px; line-height: 112px; text-align: center; color: #888;
  background: light-dark(#eee, #333) }
figcaption { overflow-wrap: anywhere; font-size: 12px }
"""


def contact_sheet(
    title: str, findings: list[Finding], thumbnail: Callable[[tuple[str, str]], str]
) -> str:
    """The page: for each kind a heading and up to `IMAGES_A_KIND` images, dropped ones first.

    Args:
        title: what was cleaned.
        findings: in the order to show.
        thumbnail: (split, key) -> a JPEG in base64, empty where there is nothing to see.
    """
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.handling, finding.kind].append(finding)
    ordered = sorted(groups, key=lambda group: list(_DONE).index(group[0]))
    body = "\n".join(_section(*group, groups[group], thumbnail) for group in ordered)
    return page(title, body or "<p>Nothing was found.</p>", _STYLE)


def _section(
    handling: str,
    kind: str,
    findings: list[Finding],
    thumbnail: Callable[[tuple[str, str]], str],
) -> str:
    shown = findings[:IMAGES_A_KIND]
    some = f", {len(shown)} shown" if len(shown) < len(findings) else ""
    figures = "\n".join(_figure(finding, thumbnail) for finding in shown)
    return (
        f'<h2 class="{handling}">{kind}: {len(findings):,} {_DONE[handling]} '
        f"<small>{escape(KINDS[kind].meaning)}{some}</small></h2>\n"
        f'<div class="sheet">\n{figures}\n</div>'
    )


def _figure(finding: Finding, thumbnail: Callable[[tuple[str, str]], str]) -> str:
    images = [(finding.split, finding.key), *([finding.twin] if finding.twin else [])]
    pictures = "".join(_picture(thumbnail(image)) for image in images)
    caption = f"{finding.split}: {finding.key}"
    if finding.twin:
        caption += f"; beside it {finding.twin[0]}: {finding.twin[1]}"
    if finding.detail:
        caption += f"; {finding.detail}"
    return f"<figure><div>{pictures}</div><figcaption>{escape(caption)}</figcaption></figure>"


def _picture(base64_jpeg: str) -> str:
    if not base64_jpeg:
        return '<span class="none">nothing to see</span>'
    return f'<img alt="" src="data:image/jpeg;base64,{base64_jpeg}">'
