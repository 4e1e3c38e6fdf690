"""HTML of a self-contained page: escaping, tables, sections, and the style that they share."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Facts = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --faint: #5f6672; --line: #e3e6eb; --paper: #ffffff; --wash: #f5f6f8;
  --good: #2a7d4f; --bad: #b3372f; --accent: #2563a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --faint: #9aa1ad; --line: #333944; --paper: #171a20;
  --wash: #20242c; --good: #80c79c; --bad: #f0908a; --accent: #7fb2ea; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
section { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 2.2rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
code { font: .9em ui-monospace, monospace; }
blockquote { margin: .8rem 0; padding: .1rem 1rem; border-left: 3px solid var(--line); color: var(--faint); }
nav { font-size: .9rem; margin-top: 1.2rem; line-height: 1.9; }
nav a { margin-right: 1rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.lead, .note { color: var(--faint); }
.note { font-size: .9rem; }
.missing { color: var(--faint); font-style: italic; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.4rem 0 0; }
.tile { background: var(--wash); border-radius: .5rem; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: .85rem; line-height: 1.35; display: block; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .34rem 1.4rem .34rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--faint); white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.text { min-width: 9rem; }
tr.group td { padding-top: .9rem; color: var(--faint); }
.bar { display: inline-block; height: .62rem; border-radius: .2rem; background: var(--accent); margin-right: .5rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
img { max-width: 100%; min-width: 30rem; height: auto; display: block; }
"""


class Html(str):
    """Text that is HTML already; every other value is escaped."""


def part(facts: Any, *keys: str) -> Any:
    """facts[a][b]..., or None where any of them is missing."""
    for key in keys:
        facts = facts.get(key) if isinstance(facts, Mapping) else None
    return facts


def text(value: object) -> Html:
    """A value as HTML: escaped, numbers grouped, None in words."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html('<span class="missing">not measured</span>')
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    if isinstance(value, int):
        return Html(f"{value:,}")
    return Html(escape(f"{value:,.4g}" if isinstance(value, float) else str(value)))


def paragraph(content: object, kind: str = "") -> Html:
    """A paragraph of class `kind`."""
    return Html(f'<p class="{kind}">{text(content)}</p>' if kind else f"<p>{text(content)}</p>")


def missing(what: str) -> Html:
    """What stands where a fact was not recorded."""
    return paragraph(f"{what} not recorded in this run.", "missing")


def bold(value: object) -> Html:
    """A value in bold."""
    return Html(f"<b>{text(value)}</b>")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> Html:
    """A table that scrolls within itself; `numbers` are the columns set right. A row of one cell heads a group."""
    kinds = ["number" if index in numbers else "text" for index in range(len(columns))]
    head = "".join(f'<th class="{kind}">{text(name)}</th>' for kind, name in zip(kinds, columns, strict=True))
    body = ""
    for row in rows:
        if len(row) == 1 < len(columns):
            body += f'<tr class="group"><td colspan="{len(columns)}">{text(row[0])}</td></tr>'
            continue
        cells = "".join(f'<td class="{kind}">{text(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))
        body += f"<tr>{cells}</tr>"
    return Html(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def pairs(facts: Iterable[tuple[str, object]]) -> Html:
    """Names and values under each other."""
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in facts)
    return Html(f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>')


def tiles(facts: Iterable[tuple[object, str]]) -> Html:
    """Figures in large, each over what it is."""
    cells = "".join(f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>' for value, name in facts)
    return Html(f'<div class="tiles">{cells}</div>')


def document(title: str, lead: object, head: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page: title, lead, head, an index, and the sections (title, HTML)."""
    links = " ".join(f'<a href="#s{index}">{text(name)}</a>' for index, (name, _) in enumerate(sections))
    body = "".join(
        f'<section id="s{index}"><h2>{text(name)}</h2>{content}</section>' for index, (name, content) in enumerate(sections)
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f'<style>{STYLE}</style></head>\n<body><main><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>{head}'
        f"<nav>{links}</nav>{body}</main></body></html>\n"
    )
