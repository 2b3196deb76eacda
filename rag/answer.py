"""The straight line: one function from a question to its verified answer. Every door consumes it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from index.errors import ModelUnavailable
from index.types import Hit
from rag import decide, excerpts, extract, followup, prompt
from rag.cite import Verified, cite, quote, without_marks
from rag.model import Finished, LanguageModel, reply
from rag.types import Answer, Citation, Event, Evidence, Timings, Token, Turn, Usage

if TYPE_CHECKING:
    from rag.assistant import Assistant

PASSAGES = 6
PASSAGES_FOR_ALL = 9
"""How many passages are looked at, and how many excerpts of them the model reads: prompt tokens are the cost that users feel. Questions for a list get more."""

DRAFT_TOKENS = 160
DRAFT_TOKENS_FOR_ALL = 260
REWRITE_TOKENS = 40

WORDS_ALONE = "The vector index is being made ready, so only passages that share words with the question were looked at. Ask again in a moment."


@dataclass(slots=True)
class Course:
    """What is counted while one question is on its way."""

    began: float
    usage: Usage = field(default_factory=Usage)
    first_token_ms: float | None = None

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.began) * 1000

    def add(self, usage: Usage) -> None:
        self.usage = Usage(
            self.usage.prompt_tokens + usage.prompt_tokens,
            self.usage.completion_tokens + usage.completion_tokens,
            self.usage.cached_tokens + usage.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the answer will say."""

    text: str
    abstained: bool
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    asks_back: bool = False


def stream(question: str, assistant: Assistant, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Iterator[Event]:
    """Answers a question: yields Evidence, then Tokens as the model speaks, then the Answer. Closing the iterator stops the model.

    `documents` narrows to ids or sources. Raises InvalidQuestion, KeyError for a document that is not there; a failing model is told in the Answer.
    """
    course = Course(time.monotonic())
    asked = prompt.checked(question)
    model, notice = assistant.answering_model()
    standalone, queries = _understood(asked, history, model, course)
    limit = PASSAGES_FOR_ALL if prompt.asks_for_all(standalone) else PASSAGES
    found = tuple(assistant.find(queries, limit, documents))
    evidence_ms = course.elapsed_ms()
    yield Evidence(standalone, found)
    hits = _excerpts(standalone, found, limit, assistant)
    texts = _texts(assistant, hits)
    hits = tuple(hit for hit in hits if texts.get(hit.passage.document_id, "")[hit.passage.span.start : hit.passage.span.end] == hit.passage.text)
    asked_back = followup.ask_back(asked, history, found)
    name = "none"
    if not hits:
        outcome = _refusal(assistant, hits, documents)
    elif asked_back:
        outcome = Outcome(asked_back, True, asks_back=True)
    elif model is None:
        outcome = _by_quoting(standalone, hits, texts, assistant, documents, notice)
    else:
        try:
            outcome = yield from _by_model(standalone, hits, texts, assistant, documents, model, course)
            name = model.name
        except ModelUnavailable as error:
            outcome = _by_quoting(standalone, hits, texts, assistant, documents, f"{error} Until then the documents' own sentences answer.")
    notices = outcome.notices
    if assistant.store.index_state != "ready" and all(hit.similarity is None for hit in hits):
        notices = (*notices, WORDS_ALONE)
    timings = Timings(round(evidence_ms, 1), course.first_token_ms, round(course.elapsed_ms(), 1))
    yield Answer(
        asked, standalone, outcome.text, outcome.abstained, outcome.citations, outcome.unsupported, hits, name, timings, course.usage, notices,
        outcome.asks_back,
    )  # fmt: skip


def _understood(question: str, history: Sequence[Turn], model: LanguageModel | None, course: Course) -> tuple[str, followup.Queries]:
    """The question as it can be understood without the conversation, and what to search for.

    The model is asked only where the words alone do not settle it.
    """
    if not history or not followup.leans_on_history(question) or followup.resolved(question, history) or model is None:
        return followup.standalone(question, history), followup.searched(question, history)
    try:
        text, usage = reply(model, followup.rewrite_messages(question, history), REWRITE_TOKENS)
    except ModelUnavailable:
        return followup.standalone(question, history), followup.searched(question, history)
    course.add(usage)
    rewritten = followup.rewritten(text, question, history)
    return rewritten, followup.queries(rewritten, history)


def _excerpts(question: str, hits: Sequence[Hit], limit: int, assistant: Assistant) -> tuple[Hit, ...]:
    """What the model reads of the passages, best first."""
    best = excerpts.chosen(question, hits, limit, assistant.embedder.embed)
    if best and prompt.asks_about_document(question):
        known = {hit.passage.id for hit in best}
        edges = excerpts.edges(assistant.store.edges(hits[0].passage.document_id))
        best += [hit for hit in edges if hit.passage.id not in known]
    return prompt.fitting(question, best)


def _texts(assistant: Assistant, hits: Sequence[Hit]) -> dict[str, str]:
    """The stored texts of the hits' documents by id; those that a sync has removed since the search are left out."""
    found: dict[str, str] = {}
    for document_id in {hit.passage.document_id for hit in hits}:
        with suppress(KeyError):
            found[document_id] = assistant.store.text(document_id)
    return found


def _by_model(
    question: str,
    hits: Sequence[Hit],
    texts: Mapping[str, str],
    assistant: Assistant,
    documents: Sequence[str] | None,
    model: LanguageModel,
    course: Course,
) -> Generator[Event, None, Outcome]:
    """Gate, draft, verify. The gate's call reads the passages; the draft's finds them in the model server's cache."""
    stated, usage = model.probability(prompt.messages(question, hits, prompt.GATE))
    course.add(usage)
    if not decide.worth_drafting(stated):
        return _refusal(assistant, hits, documents)

    wants_all = prompt.asks_for_all(question)
    pieces: list[str] = []
    complete = True
    for item in model.stream(
        prompt.messages(question, hits, prompt.DRAFT_ALL if wants_all else prompt.DRAFT), DRAFT_TOKENS_FOR_ALL if wants_all else DRAFT_TOKENS
    ):
        if isinstance(item, Finished):
            course.add(item.usage)
            complete = item.complete
        else:
            if course.first_token_ms is None:
                course.first_token_ms = round(course.elapsed_ms(), 1)
            pieces.append(item)
            yield Token(item)
    draft = prompt.unlabelled("".join(pieces))

    verified = cite(draft, question, hits, texts)
    if not decide.worth_giving(verified.leads, question, verified.borne_out):
        return _refusal(assistant, hits, documents)
    said = [] if complete else ["The model reached its length limit, so this answer may be incomplete."]
    said += [f"I could not find an answer to this part of the question: {part}." for part in decide.missing_parts(question, verified.borne_out)]
    return _given(verified, tuple(said))


def _by_quoting(
    question: str, hits: Sequence[Hit], texts: Mapping[str, str], assistant: Assistant, documents: Sequence[str] | None, notice: str
) -> Outcome:
    """The best supporting sentences themselves, as exactly cited as a model's."""
    ranked = extract.candidates(question, hits, texts, assistant.embedder.embed)
    chosen = extract.choose(ranked)
    quoted = quote(hits, texts, [(candidate.hit, candidate.span) for candidate in chosen])
    best = chosen[0] if chosen else None
    if (
        best is None
        or not decide.worth_quoting(best.similarity, best.coverage, best.names_told)
        or decide.lacks_quantity(question, without_marks(quoted.text))
    ):
        return replace(_refusal(assistant, hits, documents), notices=(notice,))
    return _given(quoted, (notice,))


def _given(verified: Verified, notices: tuple[str, ...]) -> Outcome:
    return Outcome(verified.text, False, verified.citations, verified.unsupported, notices)


def _refusal(assistant: Assistant, hits: Sequence[Hit], documents: Sequence[str] | None) -> Outcome:
    """Says that nothing was found, and what was looked at."""
    if documents is not None and not documents:
        return Outcome("I could not find an answer: no document was chosen to look in.", True)
    if not hits and not assistant.store.documents():
        return Outcome("I could not find an answer: there are no documents to look in yet. Add some with `citewell sync FOLDER`.", True)
    known = len(assistant.store.documents())
    where = "the documents you chose" if documents else "the document" if known == 1 else f"the {known} documents"
    if not hits:
        return Outcome(f"I could not find an answer to this in {where}: nothing there is near the question.", True)
    titles = list(dict.fromkeys(hit.passage.title for hit in hits))[:2]
    nearest = " and ".join(f"“{title}”" for title in titles)
    return Outcome(f"I could not find an answer to this in {where}. The nearest passages that I looked at are in {nearest}.", True)
