"""Between what a tab shows and the user's kept conversations: answers are kept, brought back and judged. The page never waits for it in vain: what cannot
be kept is told beside the answer, which stays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from index.errors import CitewellError, OverLimit, StoreDamaged, StoreError
from index.types import Hit
from rag.conversations import Conversations, KeptExchange, State, Texts, Verdict, citations_now, missing
from rag.evaluation import cases
from rag.types import Answer
from ui.chat import Conversation, Exchange

log = logging.getLogger(__name__)

UNKNOWN = "There is no such conversation: it may have been deleted, or it is not yours to see. This is a new one."
UNREADABLE = "This conversation cannot be shown: what is kept of it is damaged, or cannot be read. The log says more. This is a new one."
READ_ONLY = "Somebody else shared this conversation: it can be read, and not gone on with. Begin a new one to ask."
UNKEPT = "This answer could not be kept: the file of conversations cannot be written. It is on this page alone. Check the free disk space; the log says more."
TOO_MUCH = "This answer is not kept, and is on this page alone."
BEGUN_ANEW = "The conversation was deleted meanwhile. This answer begins a new one."
UNKEPT_VERDICT = "This could not be kept: the file of conversations cannot be written. The log says more."
GONE_VERDICT = "This could not be kept, because the answer is not in your conversations."


def keep(conversations: Conversations, user: str, value: Conversation) -> Conversation:
    """The conversation with its last answer kept among the user's, begun where it was not yet; the one that it replaces is taken out."""
    last = value.finished[-1]
    if last.answer is None:
        return value
    note, identifier = "", value.id
    try:
        try:
            identifier = identifier or conversations.begin(user)
            kept = conversations.add(identifier, user, last.answer)
        except KeyError:
            note, identifier = BEGUN_ANEW, conversations.begin(user)
            kept = conversations.add(identifier, user, last.answer)
        if last.replaces:
            with suppress(KeyError):  # it went with its conversation
                conversations.drop(last.replaces, user)
    except OverLimit as error:
        return value.changed(last.key, note=f"{TOO_MUCH} {error}")
    except Exception:  # also what a damaged row is taken for: the answer is whole, whatever becomes of keeping it
        log.exception("An answer could not be kept")
        return value.changed(last.key, note=UNKEPT)
    return replace(value.changed(last.key, kept=kept, replaces="", note=note), id=identifier)


def bring_back(conversations: Conversations, store: Texts, user: str, identifier: str, folder: Path | None = None) -> Conversation:
    """A kept conversation as the page shows it; a new one that says why, where it cannot be had. `folder` is where the user's cases are, where they have any."""
    try:
        info = conversations.info(identifier, user)
        exchanges = tuple(_brought_back(kept, store, folder) for kept in conversations.exchanges(identifier, user))
    except KeyError:
        return Conversation(notice=UNKNOWN)
    except StoreError:
        log.exception("A conversation could not be read")
        return Conversation(notice=UNREADABLE)
    own = info.owner == user
    return Conversation(exchanges, id=identifier, own=own, notice="" if own else READ_ONLY)


def _brought_back(kept: KeptExchange, store: Texts, folder: Path | None) -> Exchange:
    try:
        answer = Answer.from_dict(kept.answer)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamaged("A kept answer is not what an answer is made of.") from error
    case = ""
    if folder and kept.verdict == "wrong":
        with suppress(CitewellError):
            case = cases.find(folder, kept.question, answer.text)
    return Exchange(
        kept.question,
        answer.standalone_question,
        answer.evidence,
        answer=answer,
        key=kept.id,
        kept=kept.id,
        case=case,
        verdict=kept.verdict,
        reason=kept.reason,
        citations_now={now.number: now for now in citations_now(store, kept) if now.state != "unchanged"},
        passages_now=passages_now(store, answer.evidence, kept.own),
    )


def passages_now(store: Texts, hits: Sequence[Hit], own: bool = True) -> dict[str, State]:
    """Of the passages, those that do not stand in their documents any more as they did, by id; `own` as in KeptExchange."""
    texts: dict[str, str | None] = {}
    found: dict[str, State] = {}
    for hit in hits:
        passage = hit.passage
        if passage.document_id not in texts:
            try:
                texts[passage.document_id] = store.text(passage.document_id)
            except (KeyError, StoreDamaged):
                texts[passage.document_id] = None
        text = texts[passage.document_id]
        if text is None:
            found[passage.id] = missing(own)
        elif text[passage.span.start : passage.span.end] != passage.text:
            found[passage.id] = "changed"
    return found


def judge(conversations: Conversations, user: str, folder: Path | None, value: Conversation, key: str, verdict: Verdict, reason: str) -> Conversation:
    """The conversation once the user has said what they think of an answer: kept with it, and where they have a `folder`, what is wrong as a case there too."""
    exchange = value.answered(key)
    if exchange is None or exchange.answer is None or not value.own or (exchange.verdict, exchange.reason) == (verdict, reason):
        return value
    case, problem = exchange.case, ""
    try:
        if exchange.kept:
            conversations.judge(exchange.kept, user, verdict, reason)
        elif folder is None:
            return value.changed(key, judging_problem=GONE_VERDICT)
    except KeyError:
        return value.changed(key, judging_problem=GONE_VERDICT)
    except StoreError:
        log.exception("A verdict could not be kept")
        return value.changed(key, judging_problem=UNKEPT_VERDICT)
    except CitewellError as error:
        return value.changed(key, judging_problem=str(error))
    try:
        if folder and verdict == "wrong" and not case:
            case = cases.keep(folder, exchange.question, value.before(key).history(), exchange.document_ids, exchange.answer.text)
        elif folder and verdict != "wrong" and case:
            cases.drop(folder, case)
            case = ""
    except CitewellError as error:
        problem = str(error)
        if not exchange.kept:
            return value.changed(key, judging_problem=problem)
    return value.changed(key, verdict=verdict, reason=reason if verdict else "", case=case, judging_problem=problem)
