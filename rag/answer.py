"""The straight line: one function from a question to its verified answer. Every door consumes it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from index.errors import ModelUnavailable
from index.split import sentences
from index.types import Hit
from rag import byline, conflict, decide, excerpts, extract, followup, premise, prompt, thinking
from rag.cite import Grounds, Verified, cite, first_sentence, grounds, merged, named, nearest, quote, repeats, without_marks
from rag.model import Finished, LanguageModel, reply
from rag.resilient import Resilient, Stopped
from rag.types import Answer, Citation, Event, Evidence, Timings, Token, Turn, Usage

if TYPE_CHECKING:
    from rag.assistant import Assistant

PASSAGES = 6
PASSAGES_FOR_ALL = 9
"""How many passages are looked at, and how many excerpts of them the model reads: prompt tokens are the cost that users feel. Questions for a list get more."""

READ_FIRST, READ_FIRST_AT_LEAST = 3, 2
NEAR_THE_BEST = 0.5
"""How many excerpts the model reads before it is asked whether they are enough; the last of them only where it scores so large a part of the best's. Most
answers stand in the best ones, and whoever waits pays for each that is read."""

LOOKED_THROUGH_FOR_ALL = 40
"""How many passages are looked through for documents that a list would miss."""

DRAFT_TOKENS = 160
DRAFT_TOKENS_FOR_ALL = 260
REWRITE_TOKENS = 40
MISSING_WORDS = 3
RIVAL_TOKENS = 48
RIVAL_EXCERPTS = 2
"""What one further document may take when it is asked whether it says otherwise."""

LOADING = "The embedding model was being loaded, so only passages that share words with the question were looked at. Ask again in a moment."
WORDS_ALONE = "The vector index is being made ready, so only passages that share words with the question were looked at. Ask again in a moment."

IN_THEIR_WORDS = "What the model wrote was not borne out as it stood, so the documents' nearest words stand in its place."
FOREIGN = "The model also wrote something that the documents say nothing like; it was left out."


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
    confidence: float | None = None
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question that can be understood alone, with what was found for it: `found` are passages, `hits` the excerpts of them that are read, `texts` their
    documents' by id; `documents` is what the question was narrowed to."""

    assistant: Assistant
    question: str
    wants_all: bool
    found: tuple[Hit, ...]
    hits: tuple[Hit, ...]
    texts: Mapping[str, str]
    documents: Sequence[str] | None
    course: Course

    @property
    def best(self) -> tuple[Hit, ...]:
        """The excerpts that are read before the others: all for a list, which is drawn from all, and where a document's edges may tell who wrote it."""
        if self.wants_all or prompt.asks_about_document(self.question):
            return self.hits
        return self.hits[: self._first]

    @property
    def _first(self) -> int:
        near = [hit for hit in self.hits[:READ_FIRST] if hit.score >= NEAR_THE_BEST * self.hits[0].score]
        return max(READ_FIRST_AT_LEAST, len(near))

    def messages(self, hits: Sequence[Hit], task: str) -> list[prompt.Message]:
        """What the model reads of the first hits, or of all."""
        return prompt.messages(self.question, hits, task, self._first)


class Answering(Iterator[Event]):
    """The events of one question. close() stops the model from any thread, also while another waits in next(), which then ends as at a stream's end."""

    def __init__(self, events: Generator[Event, None, None], model: Resilient | None) -> None:
        self._events = events
        self._model = model

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        if self._model is not None:
            self._model.stop()
        with suppress(ValueError):  # another thread is in it, and is being woken
            self._events.close()


def stream(question: str, assistant: Assistant, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Answering:
    """Answers a question: yields Evidence, then Tokens as the model speaks, then the Answer. Closing the iterator stops the model.

    `documents` narrows to ids or sources. Raises InvalidQuestion, KeyError for a document that is not there; a failing model is told in the Answer.
    """
    model, notice = assistant.question_model()
    return Answering(_events(question, assistant, history, documents, model, notice), model)


def _events(
    question: str, assistant: Assistant, history: Sequence[Turn], documents: Sequence[str] | None, model: Resilient | None, notice: str
) -> Generator[Event, None, None]:
    try:
        yield from _answered(question, assistant, history, documents, model, notice)
    except Stopped:
        return
    finally:
        if model is not None:
            model.close()


def _answered(
    question: str, assistant: Assistant, history: Sequence[Turn], documents: Sequence[str] | None, model: Resilient | None, notice: str
) -> Generator[Event, None, None]:
    course = Course(time.monotonic())
    asked = prompt.checked(question)
    said = prompt.without_conditions(asked)
    by_words = assistant.remembered.is_loading
    standalone, queries = followup.standalone(said, history), followup.searched(said, history)
    wants_all, limit, found = _found(asked, standalone, queries, assistant, documents)
    evidence_ms = course.elapsed_ms()
    yield Evidence(standalone, found)
    if model is not None and (meant := _meant(said, history, model, course)):
        standalone, queries = meant, followup.queries(meant, history)
        wants_all, limit, found = _found(asked, standalone, queries, assistant, documents)
        yield Evidence(standalone, found)
    hits = _excerpts(standalone, found, limit, assistant)
    texts = _texts(assistant, (*found, *hits))
    found, hits = _still_there(found, texts), _still_there(hits, texts)
    inquiry = Inquiry(assistant, standalone, wants_all, found, hits, texts, documents, course)
    asked_back = followup.ask_back(asked, history, found)
    name = "none"
    if not hits:
        outcome = _refusal(inquiry)
    elif asked_back:
        outcome = Outcome(asked_back, True, asks_back=True)
    elif written := byline.written_by(standalone, hits, texts):
        outcome = _given(written, ())
    elif model is None:
        outcome = _by_quoting(inquiry, notice)
    else:
        try:
            outcome = yield from _by_model(inquiry, model)
            name = model.name
        except ModelUnavailable as error:
            outcome = _by_quoting(inquiry, f"{error} Until then the documents' own sentences answer.")
    if outcome.abstained and not outcome.asks_back and hits and (unclear := followup.asked_in_vain(asked, history, standalone)):
        outcome = replace(outcome, text=f"{outcome.text} {unclear}", asks_back=True)
    notices = (*(model.notices if model is not None and name != "none" else ()), *outcome.notices)
    if all(hit.similarity is None for hit in hits):
        if assistant.store.index_state != "ready":
            notices = (*notices, WORDS_ALONE)
        elif by_words:
            notices = (*notices, LOADING)
    if wants_all and not outcome.abstained:
        notices = (*notices, _examined(inquiry))
    timings = Timings(round(evidence_ms, 1), course.first_token_ms, round(course.elapsed_ms(), 1))
    yield Answer(
        asked, standalone, outcome.text, outcome.abstained, outcome.citations, outcome.unsupported, hits, name, timings, course.usage, notices,
        outcome.asks_back, outcome.confidence, outcome.conflicts,
    )  # fmt: skip


def _found(
    asked: str, standalone: str, queries: followup.Queries, assistant: Assistant, documents: Sequence[str] | None
) -> tuple[bool, int, tuple[Hit, ...]]:
    """Whether a list is asked for, how many passages are shown then, and these."""
    wants_all = prompt.asks_for_all(asked) or prompt.asks_for_all(standalone)
    limit = PASSAGES_FOR_ALL if wants_all else PASSAGES
    return wants_all, limit, tuple(excerpts.spread(assistant.find(queries, LOOKED_THROUGH_FOR_ALL if wants_all else limit, documents), limit))


def _meant(question: str, history: Sequence[Turn], model: LanguageModel, course: Course) -> str:
    """What a question means in its conversation, as the model puts it; empty where words alone settle that, or the model fails."""
    if not history or not followup.leans_on_history(question) or followup.resolved(question, history):
        return ""
    try:
        text, usage = reply(model, followup.rewrite_messages(question, history), REWRITE_TOKENS)
    except ModelUnavailable:
        return ""
    course.add(usage)
    return followup.rewritten(text, question, history)


def _excerpts(question: str, hits: Sequence[Hit], limit: int, assistant: Assistant) -> tuple[Hit, ...]:
    """What the model reads of the passages, best first."""
    best = excerpts.chosen(question, hits, limit, assistant.remembered.embed)
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


def _still_there(hits: Sequence[Hit], texts: Mapping[str, str]) -> tuple[Hit, ...]:
    """The hits whose passage still stands in its document as it was found."""
    return tuple(hit for hit in hits if texts.get(hit.passage.document_id, "")[hit.passage.span.start : hit.passage.span.end] == hit.passage.text)


def _by_model(inquiry: Inquiry, model: LanguageModel) -> Generator[Event, None, Outcome]:
    """Gate, draft, verify. The gate's call reads the passages; the draft's finds them in the model server's cache."""
    question, course = inquiry.question, inquiry.course
    threshold = decide.THRESHOLDS[inquiry.assistant.settings.refusal]
    sure, hits = _read(inquiry, model, threshold)
    if sure < threshold:
        return replace(_set_right(inquiry, model) or _refusal(inquiry, _missing(question, inquiry.hits)), confidence=sure)

    pieces: list[str] = []
    complete, broken_off = True, ""
    task, room = (prompt.DRAFT_ALL, DRAFT_TOKENS_FOR_ALL) if inquiry.wants_all else (prompt.DRAFT, DRAFT_TOKENS)
    for item in model.stream(inquiry.messages(hits, task), room):
        if isinstance(item, Finished):
            course.add(item.usage)
            complete, broken_off = item.complete, item.broken_off
        else:
            if course.first_token_ms is None:
                course.first_token_ms = round(course.elapsed_ms(), 1)
            pieces.append(item)
            yield Token(item)
    draft = prompt.unlabelled(thinking.without("".join(pieces)))
    if broken_off:
        draft = _whole_sentences(draft)

    against = grounds(question, inquiry.hits, inquiry.texts)
    verified = cite(draft, against)
    in_their_words = None
    if not verified.leads and sure >= threshold + decide.SURE_OF_EVIDENCE:
        in_their_words = _in_their_words(draft, verified, against, inquiry.assistant)
    final = in_their_words or verified
    if not decide.worth_giving(final.leads, question, final.borne_out):
        if broken_off:  # that it said nothing to the point by then does not mean that the documents do not
            raise ModelUnavailable(broken_off)
        return replace(_refusal(inquiry, _missing(question, inquiry.hits)), confidence=sure * decide.NOT_BORNE_OUT)
    final, conflicts = _compared(inquiry, final, model)
    said = [] if complete else ["The model reached its length limit, so this answer may be incomplete."]
    if broken_off:
        said = [f"{broken_off} This answer is incomplete."]
    said += [f"I could not find an answer to this part of the question: {part}." for part in decide.missing_parts(question, final.borne_out)]
    said += [IN_THEIR_WORDS] if in_their_words else []
    said += [FOREIGN] if final.foreign else []
    return replace(_given(final, tuple(said)), confidence=sure, conflicts=conflicts)


def _whole_sentences(draft: str) -> str:
    """A draft that was broken off without the sentence that it was in."""
    *whole, last = [draft[span.start : span.end] for span in sentences(draft)] or [""]
    if last.rstrip().endswith((".", "!", "?", "]", "”", '"')):
        return draft
    return draft[: draft.rindex(last)].rstrip() if whole else ""


def _in_their_words(draft: str, verified: Verified, against: Grounds, assistant: Assistant) -> Verified | None:
    """The documents' own words in place of a draft's first sentence that they do not bear out; what they bear out of the rest stays. None where none come near it."""
    first, *rest = [draft[span.start : span.end] for span in sentences(draft)] or [""]
    quoted = nearest(first, against, lambda texts: decide.about(assistant.remembered.embed([against.question, *texts])))
    if quoted is None:
        return None
    others = [made for made in (cite(said, against) for said in rest) if made.leads and not repeats(made, quoted)]
    return replace(merged([quoted, *others]), foreign=verified.foreign)


def _read(inquiry: Inquiry, model: LanguageModel, threshold: float) -> tuple[float, tuple[Hit, ...]]:
    """How sure the model is with what it read, and what it read: the best excerpts, or all where those settle nothing.

    The rest follows the best in the prompt, so that the model server has read those already. A model that says yes or no and no more has settled nothing by its no.
    """
    if len(inquiry.best) < len(inquiry.hits):
        sure, graded = _confidence(inquiry, inquiry.best, model)
        if decide.settled(sure, threshold) and (graded or sure >= threshold):
            return sure, inquiry.best
    return _confidence(inquiry, inquiry.hits, model)[0], inquiry.hits


def _confidence(inquiry: Inquiry, hits: Sequence[Hit], model: LanguageModel) -> tuple[float, bool]:
    """How likely it is that these hits answer the question, and whether the model told more than yes or no."""
    stated, usage = model.probability(inquiry.messages(hits, prompt.GATE))
    inquiry.course.add(usage)
    _, part = _uncovered(inquiry.question, hits)
    near = max((hit.similarity for hit in hits if hit.similarity is not None), default=None)
    return decide.confidence(stated, near, part), 0.0 < stated < 1.0


def _missing(question: str, hits: Sequence[Hit]) -> tuple[str, ...]:
    """The question's words that none of the excerpts holds."""
    return _uncovered(question, hits)[0]


def _uncovered(question: str, hits: Sequence[Hit]) -> tuple[tuple[str, ...], float]:
    if prompt.asks_about_document(question):
        return (), 0.0  # that it was written, published or has a title, no document says
    return decide.uncovered(question, [f"{hit.passage.title}\n{hit.passage.heading}\n{hit.passage.text}" for hit in hits])


def _compared(inquiry: Inquiry, verified: Verified, model: LanguageModel | None = None) -> tuple[Verified, tuple[str, ...]]:
    """The answer beside what other documents answer, and the sentences that tell of a disagreement; the answer as it was where there is none.

    Versions of the cited words are compared as they are; other documents about the same are asked each on its own, where there is a model.
    """
    question, found, texts = inquiry.question, inquiry.found, inquiry.texts
    if not conflict.has_one_answer(question):
        return verified, ()
    sides = [conflict.Side(verified, conflict.bearers(question, verified)), *conflict.versions(question, verified, found, texts)]
    known = frozenset().union(*(side.documents for side in sides))
    asked = 0
    for own in conflict.rivals(question, known, found):
        document = own[0].passage.document_id
        if conflict.agrees(question, verified, own, texts):
            sides.append(conflict.Side(verified, frozenset([document])))
        elif model is not None and asked < conflict.RIVALS and conflict.may_differ(question, verified, own, texts):
            asked += 1
            try:
                other = _asked_alone(inquiry, question, own, model)
            except ModelUnavailable:
                break  # the answer that is there holds without it
            if other:
                sides.append(conflict.Side(other, frozenset([document])))
    sides = conflict.joined(question, sides)
    if len(sides) == 1:
        return verified, ()
    return conflict.told(sides, {hit.passage.document_id: hit.passage.title for hit in found})


def _asked_alone(inquiry: Inquiry, question: str, own: Sequence[Hit], model: LanguageModel) -> Verified | None:
    """What some of the passages answer to a question, verified against them alone; None where they do not answer."""
    assistant = inquiry.assistant
    hits = excerpts.chosen(question, own, RIVAL_EXCERPTS, assistant.remembered.embed)
    alone = replace(inquiry, question=question, hits=tuple(hits))
    if _confidence(alone, hits, model)[0] < decide.THRESHOLDS[assistant.settings.refusal]:
        return None
    text, usage = reply(model, alone.messages(hits, prompt.DRAFT), RIVAL_TOKENS)
    inquiry.course.add(usage)
    draft = prompt.unlabelled(text)
    verified = cite(first_sentence(draft), grounds(question, hits, inquiry.texts))
    return verified if decide.worth_giving(verified.leads, question, verified.borne_out) else None


def _set_right(inquiry: Inquiry, model: LanguageModel) -> Outcome | None:
    """What the documents say where a question takes for granted that somebody did what they tell of another; None where they do not."""
    taken = premise.granted(inquiry.question)
    if taken is None or premise.is_told(*taken, inquiry.hits):
        return None
    who, asked = taken
    with suppress(ModelUnavailable):
        told = _asked_alone(inquiry, asked, inquiry.hits, model)
        if told and premise.corrects(told.borne_out, inquiry.question, who):
            return _given(told, (f"The question takes for granted what the documents do not say of {who}; this is what they say.",))
    return None


def _by_quoting(inquiry: Inquiry, notice: str) -> Outcome:
    """The best supporting sentences themselves, as exactly cited as a model's."""
    question, hits, texts = inquiry.question, inquiry.hits, inquiry.texts
    ranked = extract.candidates(question, hits, texts, inquiry.assistant.remembered.embed)
    chosen = extract.choose(ranked)
    quoted = quote(hits, texts, [(candidate.hit, candidate.span) for candidate in chosen])
    best = chosen[0] if chosen else None
    if (
        best is None
        or not decide.worth_quoting(best.similarity, best.coverage, best.names_told)
        or decide.lacks_quantity(question, without_marks(quoted.text))
    ):
        return replace(_refusal(inquiry), notices=(notice,))
    compared, conflicts = _compared(inquiry, quote(hits, texts, [(best.hit, best.span)]))
    return replace(_given(compared if conflicts else quoted, (notice,)), conflicts=conflicts)


def _given(verified: Verified, notices: tuple[str, ...]) -> Outcome:
    return Outcome(verified.text, False, verified.citations, verified.unsupported, notices)


def _examined(inquiry: Inquiry) -> str:
    """What a list or a count was drawn from: whoever relies on it must know what was not looked at."""
    read, store = len({hit.passage.document_id for hit in inquiry.hits}), inquiry.assistant.store
    chosen = inquiry.documents
    there = store.document_count() if chosen is None else len({identifier for ids in store.ids_of(chosen).values() for identifier in ids})
    return f"For this list I read the passages nearest to the question, which are in {read} of {max(read, there)} documents."


def _refusal(inquiry: Inquiry, missing: Sequence[str] = ()) -> Outcome:
    """Says that nothing was found, what was looked at, and which words of the question stood nowhere there."""
    if inquiry.documents is not None and not inquiry.documents:
        return Outcome("I could not find an answer: no document was chosen to look in.", True)
    known = inquiry.assistant.store.document_count()
    if not inquiry.hits and not known:
        return Outcome("I could not find an answer: there are no documents to look in yet. Add some with `citewell sync FOLDER`.", True)
    where = "the documents you chose" if inquiry.documents else "the document" if known == 1 else f"the {known} documents"
    if not inquiry.hits:
        return Outcome(f"I could not find an answer to this in {where}: nothing there is near the question.", True)
    titles = list(dict.fromkeys(hit.passage.title for hit in inquiry.hits))[:2]
    near = " and ".join(f"“{named(title)}”" for title in titles)
    words = " or ".join(f"“{word}”" for word in [word for word in missing if word.isascii()][:MISSING_WORDS])
    without = f", and none of them speaks of {words}" if words else ""
    return Outcome(f"I could not find an answer to this in {where}. The nearest passages that I looked at are in {near}{without}.", True)
