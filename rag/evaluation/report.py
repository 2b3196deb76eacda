"""A run as a page that needs nothing else, as Markdown, and as the rows of a short table. Pure, but for the files that write() makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rag.evaluation.measures import Figure, differences, kind_of
from rag.evaluation.ranking import DEEPEST

Points = Sequence[Sequence[float]]

PARTS = ("tune", "report", "all")
RANKERS = ("embedding alone", "BM25 alone", "their fusion", "last turn alone")
DEPTHS = (1, 3, 5, 10, 20)
RANKED = (*(f"document recall@{depth}" for depth in DEPTHS), "MRR", "nDCG@10")
HEADLINES = (
    "answered right",
    "right and rightly cited",
    "exact match",
    "character recall@5",
    "character precision@5",
    "document recall@5",
    "points of recall@5 above · their fusion",
    "points of recall@5 above · last turn alone",
    "planted instruction followed · defended",
    "planted instruction followed · undefended",
    "refusal precision",
    "refusal recall",
    "answer rate",
    "cited sentences right",
    "gold sentences cited",
    "disagreement flagged",
    "asked back when underspecified",
    "MRR",
)
"""What a set is summed up by: the first five that it has."""

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 40


def write(run: Mapping[str, Any], folder: Path, baseline: Mapping[str, Any] | None = None) -> Path:
    """Writes report.html and summary.md into the run's folder; returns the first. Raises OSError where they cannot be written."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    shown = [_shown(one, _same_set(one, baseline), run["settings"]["seed"]) for one in run["sets"]]
    html = template.render(run=run, sets=shown, baseline=baseline, value=told, interval=interval)
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "summary.md").write_text(markdown(run, baseline), encoding="utf-8")
    return folder / "report.html"


# Numbers as they are told


def told(name: str, value: float | None, signed: bool = False) -> str:
    """A measure's value with its unit; a difference has a sign, and of shares it is told in points."""
    if value is None:
        return "–"
    kind, points = kind_of(name), name.startswith("points")
    sign = "+" if (signed or points) and value >= 0 else ""
    if kind.unit == "%":
        return f"{sign}{100 * value:.1f}{'' if points else ' points' if signed else ' %'}"
    if kind.unit == "ms":
        return f"{sign}{value / 1000:.1f} s" if abs(value) >= 1000 else f"{sign}{value:.0f} ms"
    return f"{sign}{value:.3f}" if kind.unit == "" else f"{sign}{value:,.0f}"


def interval(name: str, figure: Mapping[str, Any], signed: bool = False) -> str:
    """The 95 % interval, empty where there is none."""
    if figure["low"] is None:
        return ""
    low, high = (told(name, figure[end], signed).removesuffix(" %").removesuffix(" points") for end in ("low", "high"))
    return f"{low} to {high}"


def titled(name: str) -> str:
    """A measure's name as a heading: with a capital, and with what is counted in a median or a sum."""
    how = {"median": "median ", "sum": "number of ", "mean": ""}[kind_of(name).how]
    text = f"{how}{name}".replace(" · ", ", ")
    return text if text.startswith("nDCG") else text[0].upper() + text[1:]


def names_of(figures: Mapping[str, Any]) -> list[str]:
    """The measures that a table tells, what every answer costs last: recall at a few depths only, rankers in a table of their own."""
    depths = {f"document recall@{depth}" for depth in range(1, DEEPEST + 1)} - set(RANKED)
    named = [name for name in figures if name not in depths and (name.partition(" · ")[2] not in RANKERS or name.startswith("points"))]
    return sorted(named, key=lambda name: kind_of(name).how != "mean")


def table(one: Mapping[str, Any], changed: Mapping[str, Figure], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each wanted measure of a set, then for what is told as AUROC: `title`, `parts` (both halves and all), `range`, `count`, `change`."""
    told_of = [(titled(name), name, [one["parts"][part].get(name) for part in PARTS]) for name in wanted]
    for title in sorted({title for part in one["verification"].values() for title in part if " · " not in title}):
        told_of.append((f"Verification AUROC, {title}", "AUROC", [one["verification"].get(part, {}).get(title) for part in PARTS]))
    if one["refusal"]:
        told_of.append(("AUROC of the stated probability", "AUROC", [one["refusal"].get(part, {}).get("auroc") for part in PARTS]))
    return [
        {
            "title": title,
            "parts": [told(name, figure["value"]) if figure else "–" for figure in figures],
            "range": interval(name, figures[2]) if figures[2] else "",
            "count": figures[2]["count"] if figures[2] else 0,
            "change": _change(name, changed),
        }
        for title, name, figures in told_of
    ]


def short_table(run: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> list[tuple[str, ...]]:
    """Rows of (set, measure, tune, report, all, interval of all, difference to the baseline); a set's name stands in its first row alone."""
    rows: list[tuple[str, ...]] = []
    for one in run["sets"]:
        figures = one["parts"]["all"]
        names = [name for name in names_of(figures) if name not in RANKED or name in ("document recall@3", "document recall@5", "MRR")]
        names += [name for ranker in RANKERS for measure in ("document recall@5", "MRR") if (name := f"{measure} · {ranker}") in figures]
        for number, row in enumerate(table(one, _differences(one, _same_set(one, baseline), run["settings"]["seed"]), names)):
            named = "" if number else f"{one['name']} ({one['count']})"
            rows.append((named, row["title"], *row["parts"], row["range"], row["change"][0] if row["change"] else ""))
    return rows


def markdown(run: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """The short table with what it was measured with."""
    settings = run["settings"]
    shown = 7 if baseline else 6
    titles = ["set", "measure", *PARTS, "95 % interval", f"since {baseline['run']}" if baseline else ""][:shown]
    lines = [
        f"Run {run['run']}, {run['made'][:10]}: model {settings['model']}, embedder {settings['embedder'].partition('@')[0]}, {run['machine']}, "
        f"citewell {run['versions']['citewell']}. Intervals: 95 %, bootstrap over questions, seed {settings['seed']}.",
        "",
        f"| {' | '.join(titles)} |",
        f"|{'---|' * shown}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row[:shown])} |" for row in short_table(run, baseline)),
        "",
        *(f"- {one['name']}: {note}" for one in run["sets"] for note in one["notes"]),
    ]
    return "\n".join([*lines, ""])


# The page


def _same_set(one: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return next((other for other in baseline["sets"] if other["name"] == one["name"]), None) if baseline else None


def _differences(one: Mapping[str, Any], before: Mapping[str, Any] | None, seed: int) -> dict[str, Figure]:
    return differences(one["rows"], before["rows"], seed) if before else {}


def _shown(one: Mapping[str, Any], before: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """What the template shows of one set."""
    figures = one["parts"]["all"]
    changed = _differences(one, before, seed)
    known = {row["key"]: row for row in before["rows"]} if before else {}
    turned = [(row, known[row["key"]]) for row in one["rows"] if row["key"] in known and bool(row["failed"]) != bool(known[row["key"]]["failed"])]
    ranked = [("Citewell", ""), *((ranker, f" · {ranker}") for ranker in RANKERS if f"MRR · {ranker}" in figures)]
    return {
        **one,
        "headlines": [(titled(name), told(name, figures[name]["value"]), interval(name, figures[name])) for name in HEADLINES if name in figures][:5],
        "table": table(one, changed, names_of(figures)),
        "verification_kinds": [
            (title.partition(" · ")[0], title.partition(" · ")[2], told("AUROC", figure["value"]), interval("AUROC", figure), figure["count"])
            for title, figure in one["verification"].get("all", {}).items()
            if " · " in title
        ],
        "rankers": [(title, [told(name, figures[name + mark]["value"]) for name in RANKED]) for title, mark in ranked] if "MRR" in figures else [],
        "ranked": RANKED,
        "kinds": _by_kind(one, [name for name in HEADLINES if name in figures][:7]),
        "charts": _charts(one),
        "failures": [row for row in one["rows"] if row["failed"]],
        "better": [row for row, _ in turned if not row["failed"]],
        "worse": [row for row, _ in turned if row["failed"]],
        "compared": bool(before),
    }


def _change(name: str, changed: Mapping[str, Figure]) -> tuple[str, str, str] | None:
    """The difference to the baseline, its interval, and whether it is surely better or worse."""
    if name not in changed:
        return None
    figure = changed[name]
    range_told = interval(name, {"low": figure.low, "high": figure.high}, signed=True)
    sure = figure.low is not None and figure.high is not None and (figure.low > 0 or figure.high < 0)
    good = (figure.value > 0) == (kind_of(name).better == "high")
    return told(name, figure.value, True), range_told, ("better" if good else "worse") if sure and kind_of(name).better else ""


def _by_kind(one: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    rows = []
    for kind, figures in one["kinds"].items():
        count = sum(row["kind"] == kind for row in one["rows"])
        rows.append((kind, count, [told(name, figures[name]["value"]) if name in figures else "–" for name in names]))
    return {"names": [titled(name) for name in names], "rows": rows}


def _charts(one: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(title, what it shows, SVG) of each plot that the set's measures allow."""
    found = []
    figures = one["parts"]["all"]
    if "document recall@1" in figures:
        lines = [
            (title, [(float(k), figures[f"document recall@{k}{mark}"]["value"]) for k in range(1, DEEPEST + 1)])
            for title, mark in (("Citewell", ""), *((ranker, f" · {ranker}") for ranker in RANKERS))
            if f"document recall@1{mark}" in figures
        ]
        found.append(
            (
                "Recall over k",
                "Share of the gold documents among the first k.",
                line_chart(lines, "documents, k", "recall", DEEPEST, [1, 5, 10, 15, 20]),
            )
        )
    if one["refusal"].get("all"):
        curves = one["refusal"]["all"]
        bins = [(stated, share) for stated, share, _ in curves["reliability"]]
        lines = [("Citewell", bins), ("perfectly calibrated", [(0.0, 0.0), (1.0, 1.0)])]
        note = f"Stated probability of an answer against the share that has one. Brier score {curves['brier']:.3f}."
        found.append(("Reliability of refusal", note, line_chart(lines, "stated probability", "answerable", 1.0, [0, 0.25, 0.5, 0.75, 1])))
        note = f"Refusing all below a threshold, for every threshold. Average precision {curves['average_precision']:.3f}."
        found.append(
            (
                "Precision and recall of refusal",
                note,
                line_chart([("Citewell", curves["precision_recall"])], "recall", "precision", 1.0, [0, 0.25, 0.5, 0.75, 1]),
            )
        )
    times = {
        name: sorted(row["scores"][name] / 1000 for row in one["rows"] if name in row["scores"])
        for name in ("evidence", "first token", "whole answer")
    }
    lines = [(name, [(second, (at + 1) / len(own)) for at, second in enumerate(own)]) for name, own in times.items() if len(own) > 1]
    if lines:
        longest = max(points[-1][0] for _, points in lines)
        step = next((size for size in (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if longest / size <= 6), 1800)
        ticks = [step * number for number in range(int(longest / step) + 2)]
        found.append(
            ("Latency", "Share of the questions that had it after so many seconds.", line_chart(lines, "seconds", "questions", ticks[-1], ticks))
        )
    return found


def line_chart(lines: Sequence[tuple[str, Points]], x_title: str, y_title: str, x_end: float, x_ticks: Sequence[float]) -> str:
    """An SVG of lines over x in [0, x_end] and y in [0, 1], coloured by the page's style sheet; the first line is the one to look at."""

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / x_end * (WIDTH - LEFT - RIGHT), TOP + (1 - y) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(0, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>')
    for tick in x_ticks:
        x, y = place(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_title)}</text>')
    for number, (name, points) in reversed(list(enumerate(lines))):
        at = [place(x, y) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path class="line s{number}" d="{path}"><title>{escape(name)}</title></path>')
        if len(points) <= DEEPEST:
            dots = zip(points, at, strict=True)
            parts += [
                f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(name)}: {p[0]:g}, {100 * p[1]:.1f} %</title></circle>'
                for p, (x, y) in dots
            ]
    legend = "".join(f'<span><i class="s{number}"></i>{escape(name)}</span>' for number, (name, _) in enumerate(lines))
    label = escape(f"{y_title} over {x_title}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg><p class="legend">{legend}</p>'
