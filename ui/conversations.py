"""The list of kept conversations as HTML (pure). All text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from rag.conversations import ConversationInfo
from ui.library import when_html
from ui.render import counted, escape

PAGE = 50
"""Conversations in one page of the list."""

MARKS = re.compile(r"\s*\[?[0-9]{1,4}\]|(?<=\s)[-*•]\s+")
"""An answer's marks, in a snippet also half of one, and what its lists begin with."""

EXPORTS = {"md": "Markdown", "json": "JSON"}
DELETED = "Its questions, answers and quotes are gone for good. The documents stay."
SHARED = "Everybody with an account here can read it then, with its quotes and passages, also those of documents that only you see."


def conversation_link(identifier: str) -> str:
    """The address at which the page shows a conversation."""
    return f"/?conversation={quote(identifier, safe='')}"


def view_html() -> str:
    """The frame of the list, which is fetched into it."""
    return (
        '<header class="view-head"><h2 id="conversations-title" tabindex="-1">Conversations</h2>'
        '<button type="button" class="plain" data-close>Close</button></header>'
        '<div class="view-body"><form class="filter" role="search" aria-label="Search the conversations">'
        '<input type="search" name="words" placeholder="Search titles, questions and answers" aria-label="Search titles, questions and answers" '
        'autocomplete="off" spellcheck="false"><a class="plain" href="/">New conversation</a></form>'
        '<div data-part="list"><p class="hint">Looking up your conversations…</p></div></div><p class="visually-hidden" role="status" data-said></p>'
    )


def listing_html(
    infos: Sequence[ConversationInfo], user: str, now: datetime, page: int = 1, more: bool = False, words: str = "", open: bool = True
) -> str:
    """One page of the list as this user sees it; on an `open` Citewell there is nobody to share with."""
    if not infos and page == 1:
        if words.strip():
            return '<div class="nothing"><p><b>No conversation has these words.</b></p><p>Each word must begin one in the title, a question or an answer.</p></div>'
        return '<div class="nothing"><p><b>There are no conversations yet.</b></p><p>The first answer begins one.</p></div>'
    rows = "".join(row_html(info, info.owner == user, now, open) for info in infos)
    return f'<ul class="conversations" aria-labelledby="conversations-title">{rows}</ul>{_turning_html(page, more)}'


def _turning_html(page: int, more: bool) -> str:
    if page == 1 and not more:
        return ""
    back = f'<button type="button" class="plain" data-page="{page - 1}"{"" if page > 1 else " disabled"}>Newer</button>'
    onward = f'<button type="button" class="plain" data-page="{page + 1}"{"" if more else " disabled"}>Older</button>'
    return f'<nav class="turning" aria-label="Pages of the list">{back}<span>Page {page:,}</span>{onward}</nav>'


def row_html(info: ConversationInfo, own: bool, now: datetime, open: bool = True) -> str:
    """One conversation, with what its reader may do with it."""
    plain, key = info.title or "Without a title", escape(info.id)
    title = escape(plain)
    parts = [counted(info.exchanges, "question"), when_html(info.changed, now)]
    parts += [] if own else ["shared by somebody else"]
    parts += ["shared with everybody"] if own and info.shared else []
    snippet = f'<p class="snippet">{escape(MARKS.sub("", info.snippet))}</p>' if info.snippet else ""
    actions = []
    if own:
        actions.append(f'<button type="button" class="plain" data-rename="{key}" data-title="{title}" aria-label="Rename {title}">Rename</button>')
    if own and not open:
        label = "Stop sharing" if info.shared else "Share"
        asked = "" if info.shared else f' data-asked="{escape(f"Share “{plain}”?")}" data-explained="{SHARED}"'
        wanted = str(not info.shared).lower()
        actions.append(
            f'<button type="button" class="plain" data-share="{key}" data-shared="{wanted}"{asked} aria-label="{label} {title}">{label}</button>'
        )
    for kind, name in EXPORTS.items():
        address = f"/api/conversations/{quote(info.id, safe='')}/export?format={kind}"
        actions.append(f'<a class="plain" href="{escape(address)}" download aria-label="Export {title} as {name}">{name}</a>')
    if own:
        asked, explained = escape(f"Delete “{plain}”?"), DELETED
        actions.append(
            f'<button type="button" class="plain danger" data-delete="{key}" data-asked="{asked}" data-explained="{explained}" aria-label="Delete {title}">'
            "Delete</button>"
        )
    return (
        f'<li data-conversation="{key}"><div class="said"><a href="{escape(conversation_link(info.id))}">{title}</a>'
        f'<p class="about">{" · ".join(parts)}</p>{snippet}</div><div class="actions">{"".join(actions)}</div></li>'
    )
