"""A campaign's table as one HTML file, with its plots, that needs nothing else."""

from html import escape

from joulebox.bench.plots import bars, pareto
from joulebox.bench.record import Record
from joulebox.bench.table import ALL, Table
from joulebox.bench.views import VIEWS, Rows, notes, pairs_rows, rows_of, title_of

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem} h2{font-size:1.1rem;margin-top:2rem}
div{overflow-x:auto} table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #8884;white-space:nowrap}
svg{max-width:100%;height:auto;display:block}
"""


def as_html(table: Table, record: Record) -> str:
    """The whole page."""
    title = escape(title_of(table))
    parts = [f"<h1>{title}</h1>"]
    for node in table.nodes:
        parts += [_section(f"{view.title}, node {node}", rows_of(table, view, node)) for view in VIEWS]
        parts += [svg for svg in (bars(table, node), *_paretos(table, node)) if svg is not None]
        own = [pair for pair in table.pairs if pair.node == node]
        if own:
            parts.append(_section(f"How many times as much, for the same prompts, node {node}", pairs_rows(own)))
    told = "".join(f"<li>{escape(note)}</li>" for note in notes(table, record))
    models = "".join(f"<li>{escape(one.id)}: {escape(one.quantization)}, <code>{escape(one.digest)}</code></li>"
                     for one in record.models)  # fmt: skip
    parts.append(f"<h2>To be read with it</h2><ul>{told}</ul><h2>Models</h2><ul>{models}</ul>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def plots(table: Table) -> dict[str, str]:
    """Every plot by its file's name."""
    found: dict[str, str | None] = {}
    for node in table.nodes:
        suffix = f"-{node}" if len(table.nodes) > 1 else ""
        found[f"energy{suffix}.svg"] = bars(table, node)
        for category in (*table.categories, ALL):
            found[f"pareto-{category}{suffix}.svg"] = pareto(table, node, category)
    return {name: svg for name, svg in found.items() if svg is not None}


def _paretos(table: Table, node: str) -> list[str | None]:
    every = pareto(table, node, ALL)
    return [every] if every is not None else [pareto(table, node, category) for category in table.categories]


def _section(title: str, rows: Rows) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<h2>{escape(title)}</h2><div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
