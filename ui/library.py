"""The documents view: what is in the library, what it is doing and what became of it, as values and as HTML (pure). All text is escaped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal

from index.types import DocumentInfo, Rejection
from rag.library import is_upload
from ui.chat import Outcome, Work
from ui.render import counted, document_link, escape

PAGE = 50
"""Rows in one page of the list: the browser never gets more, however many documents there are."""

LISTED = 100
"""Files that a report names of each kind; of the others it gives the number."""

READABLE = "PDF, Word, PowerPoint, Excel, OpenDocument, web pages, e-books, e-mail, notebooks, text and source code"

NUMBER = re.compile(r"[0-9]+")

OWN_HINT = " What you add is yours alone, until you share it."
SHARED = "Everybody with an account here can find it, read it and get answers from it then."
UNSHARED = "Nobody else finds it or gets answers from it any more. What was quoted from it stays in their conversations."

Status = Literal["waiting", "rejected", "indexed"]
STATUSES: dict[Status, str] = {"waiting": "Waiting", "rejected": "Rejected", "indexed": "Indexed"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that the library knows: a document, a rejected file, a rejected new version of a document, or a file that waits."""

    root: str
    source: str
    document: DocumentInfo | None = None
    rejection: Rejection | None = None
    waits: bool = False

    @property
    def status(self) -> Status:
        return "waiting" if self.waits else "rejected" if self.rejection else "indexed"

    @property
    def title(self) -> str:
        return self.document.title if self.document else PurePosixPath(self.source).name or self.source

    @property
    def at(self) -> str:
        """When it came to stand so, as ISO 8601; empty while it waits."""
        return "" if self.waits else self.rejection.at if self.rejection else self.document.indexed_at if self.document else ""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, where there are several: their id, whether they may change what is everybody's, and the root of what they upload."""

    id: str
    admin: bool
    own_root: str

    def may_change(self, entry: Entry) -> bool:
        """Whether they may remove a file, or have it read again."""
        return self.admin or entry.root == self.own_root or (entry.document is not None and entry.document.owner == self.id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the list is asked for: words that name and title hold, a kind of file, a status, an order, and a page from 1."""

    words: str = ""
    kind: str = ""
    status: str = ""
    order: str = "date"
    page: int = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the entries that were wanted, with the numbers that stand around it. `counts` and `kinds` are over all entries."""

    rows: tuple[Entry, ...]
    first: int
    matching: int
    page: int
    pages: int
    total: int
    counts: Mapping[str, int]
    kinds: Mapping[str, int]


def kind_of(source: str) -> str:
    """What a file's name says it is: its suffix in capitals, 'TEXT' where it has none."""
    return PurePosixPath(source).suffix[1:].upper() or "TEXT"


def entries(documents: Iterable[DocumentInfo], rejections: Iterable[Rejection], waiting: Iterable[tuple[str, str]]) -> list[Entry]:
    """All that the library knows, each file once."""
    stored = {(info.root, info.source): info for info in documents}
    rejected = {(rejection.root, rejection.source): rejection for rejection in rejections}
    queued = set(waiting)
    return [Entry(*key, stored.get(key), rejected.get(key), key in queued) for key in dict.fromkeys((*stored, *rejected, *sorted(queued)))]


def listing(known: Sequence[Entry], wanted: Wanted) -> Listing:
    """The page of the list that was wanted; a page that is not there is the nearest one that is. What waits comes first."""
    needles = wanted.words.casefold().split()

    def fits(entry: Entry) -> bool:
        if (wanted.kind and kind_of(entry.source) != wanted.kind) or (wanted.status and entry.status != wanted.status):
            return False
        if not needles:
            return True
        heap = f"{entry.title}\n{entry.source}".casefold()
        return all(needle in heap for needle in needles)

    found = sorted((entry for entry in known if fits(entry)), key=lambda entry: (_by_name(entry.title), entry.source))
    if wanted.order != "name":
        found.sort(key=lambda entry: entry.at, reverse=True)
    found.sort(key=lambda entry: not entry.waits)
    pages = max(1, -(-len(found) // PAGE))
    page = min(max(1, wanted.page), pages)
    first = (page - 1) * PAGE
    return Listing(
        rows=tuple(found[first : first + PAGE]),
        first=first + 1 if found else 0,
        matching=len(found),
        page=page,
        pages=pages,
        total=len(known),
        counts=Counter(entry.status for entry in known),
        kinds=dict(sorted(Counter(kind_of(entry.source) for entry in known).items())),
    )


def _by_name(title: str) -> str:
    """What names are ordered by: "Chapter 2" before "Chapter 10"."""
    return NUMBER.sub(lambda digits: digits[0].zfill(12), title.casefold())


# Numbers for people


def size_text(number: int) -> str:
    """A file's size as people say it: "740 bytes", "1.2 MB"."""
    if number < 1000:
        return counted(number, "byte")
    power = next((power for power in (1, 2) if number < 999.5 * 1000**power), 3)
    size, unit = number / 1000**power, ("kB", "MB", "GB")[power - 1]
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"


def ago(at: datetime, now: datetime) -> str:
    """How long ago something was; from a month on, its date."""
    seconds = (now - at).total_seconds()
    if seconds < 60:
        return "just now"
    for name, length, limit in (("minute", 60, 3600), ("hour", 3600, 86_400), ("day", 86_400, 30 * 86_400)):
        if seconds < limit:
            return f"{counted(int(seconds // length), name)} ago"
    return f"{at.day} {at:%b %Y}"


def time_of(at: str) -> datetime:
    """The time in an ISO 8601 text, in UTC where it says no other; ValueError where it is none."""
    parsed = datetime.fromisoformat(at)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def when_html(at: str, now: datetime) -> str:
    """A time, said relatively, with the exact one in its hint; a time that is none is shown as it is."""
    try:
        exact = time_of(at)
    except ValueError:
        return escape(at)
    return f'<time datetime="{escape(at)}" title="{exact:%Y-%m-%d %H:%M:%S} UTC">{ago(exact, now)}</time>'


def left_text(seconds: float) -> str:
    """The time left, not more exact than it is known."""
    if seconds < 5:
        return "a few seconds left"
    if seconds < 60:
        return f"about {round(seconds / 5) * 5} s left"
    if seconds < 3570:
        return f"about {round(seconds / 60)} min left"
    return f"about {counted(round(seconds / 3600), 'hour')} left"


# The view


def view_html(max_bytes: int, add_urls: bool = False, open: bool = True) -> str:
    """The frame of the view; its list and its progress are fetched into it, and again when they change. With `add_urls` it takes addresses, too.

    On an `open` Citewell all is the one user's.
    """
    limit, own = size_text(max_bytes), "" if open else OWN_HINT
    address = (
        '<form class="address"><label for="library-url">Or add a web page</label>'
        '<input type="text" inputmode="url" id="library-url" name="url" maxlength="2000" placeholder="https://…" autocomplete="off" spellcheck="false">'
        '<button class="plain">Add</button></form>'
    )
    return (
        '<header class="view-head"><h2 id="library-title" tabindex="-1">Documents</h2>'
        '<button type="button" class="plain" data-close>Close</button></header>'
        '<div class="view-body"><section class="adding" aria-labelledby="adding-label"><div class="drop">'
        f'<p id="adding-label"><label class="pick" for="library-files">Choose files</label> or drop them anywhere on this page'
        f'<input type="file" id="library-files" class="visually-hidden" multiple aria-describedby="adding-hint" data-limit="{max_bytes}"></p>'
        f'<p class="hint" id="adding-hint">{READABLE}.<br>At most {limit} a file. '
        f"A file with the name of an earlier upload replaces it.{own}</p></div>{address if add_urls else ''}"
        '<div class="uploading" hidden><p></p><progress aria-label="Upload"></progress><button type="button" class="plain" data-cancel>Cancel</button></div>'
        '<ul class="upload-notes" role="status"></ul></section><div data-part="work"></div>'
        '<form class="filter" role="search" aria-label="Filter the documents">'
        '<input type="search" name="words" placeholder="Filter by name" aria-label="Filter by name" autocomplete="off" spellcheck="false">'
        '<select name="status" aria-label="Status"><option value="">Any status</option></select>'
        '<select name="kind" aria-label="Type"><option value="">Any type</option></select>'
        '<select name="order" aria-label="Order"><option value="date">By date</option><option value="name">By name</option></select></form>'
        '<div data-part="list"><p class="hint">Looking up the documents…</p></div></div>'
        '<footer class="chosen-bar" hidden><p role="status"></p><button type="button" class="plain" data-choose-none>Clear</button>'
        '<button type="button" class="plain danger" data-remove-chosen>Remove them</button>'
        '<button type="button" class="primary" data-close>Ask these</button></footer>'
        '<p class="visually-hidden" role="status" data-said></p>'
    )


def listing_html(
    shown: Listing,
    now: datetime,
    sizes: Mapping[tuple[str, str], int | None] | None = None,
    busy: bool = False,
    viewer: Viewer | None = None,
) -> str:
    """The list itself, with the options that the filter offers. `sizes` are those of files that are no documents, by root and source; while the
    library is `busy`, what waits has its turn coming. Where there are several users, `viewer` is the one who looks."""
    statuses = "".join(
        f'<option value="{status}">{label} ({shown.counts[status]:,})</option>' for status, label in STATUSES.items() if shown.counts.get(status)
    )
    kinds = "".join(f'<option value="{escape(kind)}">{escape(kind)} ({number:,})</option>' for kind, number in shown.kinds.items())
    options = f'<template data-options="status">{statuses}</template><template data-options="kind">{kinds}</template>'
    if not shown.total:
        return f'{options}<div class="nothing first"><p><b>There are no documents yet.</b></p><p>Add files above, and ask about them.</p></div>'
    if not shown.matching:
        return f'{options}<div class="nothing"><p><b>No file fits this filter.</b></p><p>{counted(shown.total, "file")} in all.</p></div>'
    last = shown.first + len(shown.rows) - 1
    some = f"{shown.first:,}–{last:,} of {counted(shown.matching, 'file')}" if shown.pages > 1 else counted(shown.matching, "file")
    filtered = f", {shown.total:,} in all" if shown.matching < shown.total else ""
    rows = "".join(row_html(entry, now, (sizes or {}).get((entry.root, entry.source)), busy, viewer) for entry in shown.rows)
    # Roles said once more, because a table that is laid out otherwise on a phone loses its own.
    return (
        f'{options}<p class="count" role="status">{some}{filtered}</p><table role="table" aria-labelledby="library-title"><thead role="rowgroup"><tr role="row">'
        '<th role="columnheader" scope="col" class="choose"><input type="checkbox" data-choose-all aria-label="Ask only the documents shown here" '
        'title="Ask only the documents shown here"></th><th role="columnheader" scope="col">Name</th><th role="columnheader" scope="col">Type</th>'
        '<th role="columnheader" scope="col" class="number">Size</th><th role="columnheader" scope="col" class="number">Passages</th>'
        '<th role="columnheader" scope="col">Status</th><th role="columnheader" scope="col">When</th>'
        '<th role="columnheader" scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>{_turning_html(shown)}'
    )


def _turning_html(shown: Listing) -> str:
    if shown.pages == 1:
        return ""
    back = f'<button type="button" class="plain" data-page="{shown.page - 1}"{"" if shown.page > 1 else " disabled"}>Previous</button>'
    onward = f'<button type="button" class="plain" data-page="{shown.page + 1}"{"" if shown.page < shown.pages else " disabled"}>Next</button>'
    return f'<nav class="turning" aria-label="Pages of the list">{back}<span>Page {shown.page:,} of {shown.pages:,}</span>{onward}</nav>'


def row_html(entry: Entry, now: datetime, size: int | None = None, busy: bool = False, viewer: Viewer | None = None) -> str:
    """One file, with what can be done about it by whoever looks; `size` is that of a file that is no document."""
    title, info, uploaded = escape(entry.title), entry.document, is_upload(entry.root)
    may_change = viewer is None or viewer.may_change(entry)
    if info:
        box = f'<input type="checkbox" data-choose="{escape(info.id)}" aria-label="Ask only chosen documents: {title}">'
        name = f'<a href="{escape(document_link(info.id))}">{title}</a>'
    else:
        box, name = "", f"<b>{title}</b>"
    source = f'<span class="source" title="{escape(entry.source)}">{escape(entry.source)}</span>' if entry.source != entry.title else ""
    if viewer is not None:
        source += f'<span class="owner">{_whose(entry, viewer)}</span>'
    state = f'<span class="state {entry.status}">{STATUSES[entry.status]}</span>'
    if entry.rejection and not entry.waits:
        still = " The version from before still answers." if info else ""
        state += f'<span class="reason">{escape(entry.rejection.reason)}.{still}</span>'
    actions = []
    if may_change and (not busy if entry.waits else entry.rejection):  # what waits for nothing was forgotten by a cancel
        place, label = f'data-retry="{escape(entry.source)}" data-root="{escape(entry.root)}"', "Read now" if entry.waits else "Retry"
        actions.append(f'<button type="button" class="plain" {place} aria-label="{label} {title}">{label}</button>')
    if viewer is not None and info and entry.root == viewer.own_root and info.owner in (None, viewer.id):
        shared = info.owner is None
        label, asked, explained = ("Stop sharing", "Stop sharing", UNSHARED) if shared else ("Share", "Share", SHARED)
        actions.append(
            f'<button type="button" class="plain" data-share-document="{escape(info.id)}" data-shared="{str(not shared).lower()}" data-done="{label}" '
            f'data-asked="{escape(f"{asked} “{entry.title}”?")}" data-explained="{explained}" aria-label="{label} {title}">{label}</button>'
        )
    if may_change and (info or uploaded):
        gone = "Its text and passages go at once, and no answer uses it any more. " if info else ""
        fate = "The uploaded file is deleted." if uploaded else "The file itself stays in its folder, and is left out until you retry it."
        asked, explained = f"Remove “{entry.title}”?", gone + fate
        which = f'data-remove="{escape(info.id)}"' if info else f'data-discard="{escape(entry.source)}" data-root="{escape(entry.root)}"'
        actions.append(
            f'<button type="button" class="plain" {which} data-asked="{escape(asked)}" data-explained="{escape(explained)}" '
            f'aria-label="Remove {title}">Remove</button>'
        )
    size = info.bytes or None if info else size
    passages = f'{info.passages:,}<span class="unit"> {"passage" if info.passages == 1 else "passages"}</span>' if info else "–"
    cells = (
        ("choose", box),
        ("name", name + source),
        ("kind", escape(kind_of(entry.source))),
        ("number", "–" if size is None else size_text(size)),
        ("number", passages),
        ("standing", state),
        ("when", when_html(entry.at, now) if entry.at else "–"),
        ("actions", "".join(actions)),
    )
    body = "".join(f'<td role="cell" class="{kind}">{content}</td>' for kind, content in cells)
    return f'<tr role="row" data-status="{entry.status}">{body}</tr>'


def _whose(entry: Entry, viewer: Viewer) -> str:
    if entry.document is None or entry.document.owner == viewer.id:
        return "Yours" if entry.document or entry.root == viewer.own_root else "Everybody’s"
    return "Shared by you" if entry.root == viewer.own_root else "Everybody’s"


def work_html(work: Work | None, outcomes: Sequence[Outcome], notices: Sequence[str]) -> str:
    """What the library is doing, what it last did, and what the store has to say about itself."""
    banners = "".join(f'<p class="banner" role="note">{escape(notice)}</p>' for notice in notices)
    ended = [outcome_html(outcome) for outcome in outcomes]
    earlier = f'<details class="before"><summary>Earlier reports ({len(ended) - 1})</summary>{"".join(ended[1:])}</details>' if ended[1:] else ""
    return f'{banners}{progress_html(work) if work else ""}<div class="outcomes">{"".join(ended[:1])}{earlier}</div>'


def progress_html(work: Work) -> str:
    """How far the library's work is, with its rate, the time left and a way to end it."""
    parts = [f"{work.done:,} of {work.total:,}" if work.total else "Looking for files"]
    parts += [_rate(work.files_per_second)] if work.files_per_second else []
    parts += [left_text(work.seconds_left)] if work.seconds_left is not None else []
    bar = f' value="{min(work.done, work.total)}" max="{work.total}"' if work.total else ""
    return (
        f'<section class="working" aria-label="Work in progress"><div><p class="what">{escape(work.what)}</p><p class="far">{" · ".join(parts)}</p></div>'
        '<button type="button" class="plain" data-cancel title="What is finished is kept">Cancel</button>'
        f'<progress aria-label="{escape(work.what)}"{bar}></progress><p class="current">{escape(work.current)}</p></section>'
    )


def _rate(files_per_second: float) -> str:
    """Files a second, or seconds a file where that is the larger number."""
    number, unit = (files_per_second, "files a second") if files_per_second >= 1 else (1 / files_per_second, "s a file")
    return f"{number:,.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"


def outcome_html(outcome: Outcome) -> str:
    """What a job came to: in one line, with the files by name behind it."""
    what, report = escape(outcome.what), outcome.report
    if report is None:
        return f'<div class="outcome problem"><p><b>{what}</b> could not be done. {escape(outcome.problem)}</p></div>'
    groups = [("added", report.added), ("changed", report.changed), ("removed", report.removed), ("unchanged", report.unchanged)]
    said = [f"{len(sources):,} {name}" for name, sources in groups if sources]
    said += [f"{len(report.rejected):,} rejected"] if report.rejected else []
    cancelled = " Cancelled: what was finished is kept." if report.cancelled else ""
    problem = f" {escape(outcome.problem)}" if outcome.problem else ""
    summary = f"<b>{what}</b>: {', '.join(said) or 'nothing to do'}.{cancelled}{problem}"
    names = "".join(_names_html(name, [escape(source) for source in sources[:LISTED]], len(sources)) for name, sources in groups if sources)
    if report.rejected:
        reasons = [f"{escape(source)}<span>{escape(reason)}</span>" for source, reason in list(report.rejected.items())[:LISTED]]
        names = _names_html("rejected", reasons, len(report.rejected)) + names
    if not names:
        return f'<div class="outcome"><p>{summary}</p></div>'
    return f'<details class="outcome"><summary>{summary}</summary>{names}</details>'


def _names_html(name: str, items: Sequence[str], number: int) -> str:
    """Files under what became of them; `items` are HTML already."""
    more = f'<li class="more">and {number - len(items):,} more</li>' if number > len(items) else ""
    return f"<h3>{name.capitalize()}</h3><ul>{''.join(f'<li>{item}</li>' for item in items)}{more}</ul>"
