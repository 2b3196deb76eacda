"""From a draft to an answer whose every sentence is verified. Pure: no model, no store.

Each sentence of the draft is aligned with windows of one to three neighbouring sentences of the evidence. A window supports a sentence when it holds
the sentence's words, every number and every name in it, and does not say the opposite. The model's own marks are dropped: small models forget or invent them.
This module alone builds a Citation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from index.split import paragraphs, sentences
from index.types import Hit, Passage, Span
from index.words import WORD, content_stems, stem
from rag.facts import HYPHEN, clauses, denies, later_names, name_runs, names, numbers, opposes, own_subject, plain_opening, quantities, sets_the_scene
from rag.types import Citation

SUPPORT_FRESH = 0.6
SUPPORT = 0.5
"""The least part of a sentence's words that its spans must hold: of those that the question did not hold already, and of all."""

OWN = 0.4
"""The least part of a sentence's words that a window must hold itself before names told elsewhere count for it."""

WINDOW = 3
"""The longest run of neighbouring sentences that may be quoted for one sentence."""

TOPIC_CHARACTERS = 100_000
"""How far into a document its topics are looked for."""

PARAGRAPH_CHARACTERS = 1_500
"""How far back from a passage the beginning of its first paragraph is looked for."""

NAMED_TITLE = 15
"""Characters; a shorter title in a sentence may be anything but the document's name."""

SPANS = 4
"""The most spans that one sentence may need together: a list can draw on several places."""

MARK = re.compile(r"[ \t]*\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_LIST = re.compile(
    r"\b[A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*(?:, (?:and |or )?[A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*| (?:and|or|vs\.?) [A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*)+"
)
_FULL_NAME = re.compile(r"\b[A-Z]\w+(?: [A-Z]\w+){1,3}\b")


@dataclass(frozen=True, slots=True)
class Verified:
    """A draft after verification: its text with marks, the citations they resolve to, and the sentences that nothing supports.

    `leads`: the first sentence, which answers, is supported. `borne_out` are the supported sentences alone, without marks.
    """

    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    leads: bool = False
    borne_out: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a sentence of the draft says, as it is compared.

    `fresh` are the stems that the question did not hold. `subject` is the name that comes first; `bound` pairs each number with the name before it.
    """

    text: str
    stems: frozenset[str]
    fresh: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    subject: frozenset[str]
    bound: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Neighbouring sentences of one paragraph of one document, and what they hold. `context` are the names
    told before them in the paragraph or above it, `title` the stems of the document's title,
    `lines` the stems of each sentence, `subjects` the name that each opens with."""

    hit: int
    document_id: str
    span: Span
    text: str
    stems: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    context: frozenset[str]
    title: frozenset[str]
    lines: tuple[frozenset[str], ...]
    subjects: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All windows of the passages; the names of several words that they tell (`Jordan Schneider`), each as (stems, last stem).

    By document id, `topics` are the names that the document is about, so that its sentences may leave them out, and `siblings` the names that it lists
    side by side: a sentence that tells one of them and not the other is not about the other.
    """

    windows: tuple[Window, ...]
    full_names: tuple[tuple[frozenset[str], str], ...]
    topics: Mapping[str, frozenset[str]]
    siblings: Mapping[str, Mapping[str, frozenset[str]]]


def claim(sentence: str, question: str, known: frozenset[str], told: frozenset[str]) -> Claim:
    """What a sentence says. `known` are names that evidence or question tell elsewhere than at a sentence's start, `told` all their stems."""
    stems = frozenset(content_stems(sentence))
    found = names(sentence)
    opening = plain_opening(sentence)
    # `Improving …` is no name; but a first word that nobody told, where a subject stands, may be one that the model made up.
    if opening is not None and opening not in known and (opening in told or sets_the_scene(sentence)):
        found -= {opening}
    runs = [(at, [name for name in run if name in found]) for at, run in name_runs(sentence)]
    runs = [(at, run) for at, run in runs if run]
    before = [(quantity, [run[-1] for start, run in runs if start < at][-1:]) for at, quantity in quantities(sentence)]
    return Claim(
        sentence,
        stems,
        stems - frozenset(content_stems(question)),
        numbers(sentence),
        frozenset(found),
        frozenset(runs[0][1]) if runs else frozenset(),
        tuple((quantity, nearest[0]) for quantity, nearest in before if nearest),
    )


def gather(hits: Sequence[Hit], texts: Mapping[str, str]) -> Evidence:
    """All windows of the hits' passages. `texts` holds the stored text of every hit's document, by document id."""
    found: list[Window] = []
    told: dict[frozenset[str], str] = {}
    for number, hit in enumerate(hits):
        passage = hit.passage
        above = names(f"{passage.title} {passage.heading}")
        titled = frozenset(content_stems(passage.title))
        for match in _FULL_NAME.finditer(passage.text):
            pieces = [stem(word) for word in WORD.findall(match.group())]
            if not match.group().split()[-1].isupper():
                told[frozenset(pieces)] = pieces[-1]
        whole = texts[passage.document_id]
        for paragraph in paragraphs(passage.text):
            # A paragraph can have begun in the passage before.
            opening = max(whole.rfind("\n", 0, passage.span.start + paragraph[0].start), passage.span.start - PARAGRAPH_CHARACTERS) + 1
            lines = tuple(frozenset(content_stems(passage.text[line.start : line.end])) for line in paragraph)
            subjects = tuple(own_subject(passage.text[line.start : line.end]) for line in paragraph)
            for first in range(len(paragraph)):
                before = names(whole[opening : passage.span.start + paragraph[first].start])
                for last in range(first, min(first + WINDOW, len(paragraph))):
                    span = Span(passage.span.start + paragraph[first].start, passage.span.start + paragraph[last].end)
                    text = whole[span.start : span.end]
                    held = lines[first : last + 1]
                    stems = frozenset().union(*held)
                    found.append(
                        Window(
                            number,
                            passage.document_id,
                            span,
                            text,
                            stems,
                            numbers(text),
                            names(text),
                            before | above,
                            titled,
                            held,
                            subjects[first : last + 1],
                        )
                    )
    heads = {hit.passage.document_id: texts[hit.passage.document_id][:TOPIC_CHARACTERS] for hit in hits}
    topics = {document_id: _topics(head) for document_id, head in heads.items()}
    return Evidence(tuple(found), tuple(told.items()), topics, {document_id: _siblings(head) for document_id, head in heads.items()})


@lru_cache(maxsize=256)
def _siblings(text: str) -> Mapping[str, frozenset[str]]:
    """Names that a text lists side by side (`Alibaba, ByteDance and Kuaishou`), each with all that it stands beside somewhere."""
    found: dict[str, set[str]] = {}
    for listed in _LIST.finditer(text):
        row = {run[-1] for _, run in name_runs(listed.group())}
        for name in row:
            found.setdefault(name, set()).update(row - {name})
    return {name: frozenset(others) for name, others in found.items()}


@lru_cache(maxsize=256)
def _topics(text: str) -> frozenset[str]:
    """The names that a text tells nearly as often as any: what it is about."""
    counts = Counter(stem(piece) for word in WORD.findall(text) for piece in HYPHEN.split(word) if names(piece))
    most = max(counts.values(), default=0)
    return frozenset(name for name, count in counts.items() if count >= max(4, 0.3 * most))


@lru_cache(maxsize=100_000)
def _alike(first: str, second: str) -> bool:
    """Whether two stems are of one family: `invest` and `investor`, `generat` and `generator`."""
    if first == second:
        return True
    shorter, longer = sorted((first, second), key=len)
    return len(shorter) >= 5 and len(longer) - len(shorter) <= 3 and longer.startswith(shorter)


def _one_name(first: str, second: str) -> bool:
    """Whether two names are one, as country and people are: `China` and `Chinese`, `America` and `American`."""
    shorter, longer = sorted((first, second), key=len)
    return _alike(first, second) or (len(shorter) >= 5 and len(longer) - len(shorter) <= 3 and longer.startswith(shorter[:-1]))


def _held_names(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in wanted if name in there or any(_one_name(name, other) for other in there))


def _held(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in wanted if word in there or any(_alike(word, other) for other in there))


def _contradicts(sentence: Claim, window: Window) -> bool:
    """Whether one of the two denies or turns round what the other says, judged by the window's clause that is nearest to the sentence."""
    nearest = max(clauses(window.text), key=lambda clause: len(_held(sentence.stems, frozenset(content_stems(clause)))), default=window.text)
    if opposes(sentence.text, nearest):
        return True
    return not denies(window.text) if denies(sentence.text) else denies(nearest)


@dataclass(frozen=True, slots=True)
class Cover:
    """What of a sentence some windows bear out so far. `inferred` names stand near them, not in them."""

    stems: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    inferred: frozenset[str] = frozenset()

    def joined(self, other: Cover) -> Cover:
        names = self.names | other.names
        return Cover(self.stems | other.stems, self.numbers | other.numbers, names, (self.inferred | other.inferred) - names)

    def suffices(self, sentence: Claim) -> bool:
        """Every number and name, and enough of the words: of all, and of those that answer."""
        exact = sentence.numbers <= self.numbers and sentence.names <= self.names | self.inferred
        return (
            exact and 0 < SUPPORT * len(sentence.stems) <= len(self.stems) and SUPPORT_FRESH * len(sentence.fresh) <= len(self.stems & sentence.fresh)
        )

    def worth(self, sentence: Claim) -> float:
        """How much is borne out: words once, words that the question did not hold twice, numbers and names twice more, inferred names little."""
        return len(self.stems) + len(self.stems & sentence.fresh) + 2.0 * len(self.numbers) + 2.0 * len(self.names) + 0.5 * len(self.inferred)


def _cover(sentence: Claim, window: Window, evidence: Evidence) -> Cover:
    own = _held(sentence.stems, window.stems)
    names_held = _held_names(sentence.names, window.names | window.stems)
    # What the question and the document's title both say, the document need not repeat: it is the one that is asked about.
    titled = _held(sentence.stems - sentence.fresh, window.title) if own & sentence.fresh else frozenset()
    inferred = _held_names(sentence.names - names_held, window.title) if titled else frozenset()
    if len(own | titled) >= OWN * len(sentence.stems):
        # A name that the window leaves to a pronoun counts when its paragraph or heading told it before, or the document is about it;
        # a first name when the last name stands there. A window that holds little else of the sentence earns no such trust.
        inferred |= _held_names(sentence.names - names_held, window.context | evidence.topics.get(window.document_id, frozenset()))
        for pieces, last in evidence.full_names:
            if last in names_held:
                inferred |= (sentence.names - names_held) & pieces
    said = [len(_held(sentence.stems, line)) for line in window.lines]
    speaks_of = window.subjects[said.index(max(said))] if said else frozenset()
    if speaks_of and not _held_names(speaks_of, sentence.names):
        inferred -= sentence.subject  # the sentence that says most of it is plainly about somebody else
    siblings = evidence.siblings.get(window.document_id, {})
    inferred = frozenset(name for name in inferred if not siblings.get(name, frozenset()) & window.names)
    return Cover(own | titled | (inferred & sentence.stems), sentence.numbers & window.numbers, names_held, inferred)


def support(sentence: Claim, evidence: Evidence) -> list[Window]:
    """The fewest, smallest windows that together bear the sentence out, and one of each other document that does so alone; empty when nothing does.

    Greedy: the window that adds most comes first. Length costs a little; ties go to the better hit.
    """
    covers = [(window, _cover(sentence, window, evidence)) for window in evidence.windows if not _contradicts(sentence, window)]
    chosen: list[Window] = []
    parts: list[tuple[Window, Cover]] = []
    total = Cover()
    while len(chosen) < SPANS and not total.suffices(sentence):
        ranked = [
            (total.joined(cover).worth(sentence) - total.worth(sentence) - 0.004 * len(window.text), -window.hit, window, cover)
            for window, cover in covers
            if cover.stems and (not chosen or _earns(total, cover, sentence))
        ]
        if not ranked:
            return []
        gain, _, window, cover = max(ranked, key=lambda entry: entry[:2])
        if gain <= 0:
            return []
        chosen.append(window)
        parts.append((window, cover))
        total = total.joined(cover)
    if not total.suffices(sentence) or not _hangs_together(sentence, parts):
        return []
    return chosen + _others(sentence, covers, {window.document_id for window in chosen})


def _hangs_together(sentence: Claim, parts: Sequence[tuple[Window, Cover]]) -> bool:
    """Whether windows that bear a sentence out together do not merely hold its pieces: `Seedance`, and far from it somebody else's `15 seconds`.

    The subject must stand where much of the sentence is borne out, and each number by the name that it follows.
    """
    if sentence.subject:
        predicate = sentence.fresh - sentence.subject
        _, leading = max(parts, key=lambda part: len(part[1].stems & predicate))
        told = any(
            _tells_subject(sentence, window, cover)
            and (cover is leading or len((cover.stems & sentence.fresh | cover.names) - sentence.subject) + len(cover.numbers) >= 2)
            for window, cover in parts
        )
        if not told:
            return False
    return all(any(number in cover.numbers and name in cover.names | cover.inferred for _, cover in parts) for number, name in sentence.bound)


def _tells_subject(sentence: Claim, window: Window, cover: Cover) -> bool:
    """Whether a window names the subject in or before the sentence that says most of it: what `it` stands for was told before, not after."""
    if not sentence.subject <= cover.names | cover.inferred:
        return False
    predicate = sentence.stems - sentence.subject
    said = [len(_held(predicate, line)) for line in window.lines]
    until = said.index(max(said)) + 1 if said else 0
    speaks_of = window.subjects[until - 1] if until else frozenset()
    if speaks_of and not _held_names(speaks_of, sentence.names) and not _held_names(sentence.subject, window.lines[until - 1]):
        return False
    told = frozenset().union(*window.lines[:until]) | window.context | cover.inferred
    return sentence.subject <= _held_names(sentence.subject, told) | cover.inferred


def _earns(total: Cover, cover: Cover, sentence: Claim) -> bool:
    """Whether a further window brings more than one stray word or name, which any sentence might hold by chance."""
    joined = total.joined(cover)
    new = len((joined.stems | joined.names) - (total.stems | total.names | total.inferred)) + len(joined.numbers - total.numbers)
    return new >= 2 or (new == 1 and len(cover.stems) >= OWN * len(sentence.stems))


def _others(sentence: Claim, covers: Sequence[tuple[Window, Cover]], cited: set[str]) -> list[Window]:
    """The shortest window of each further document that bears the sentence out by itself."""
    best: dict[str, Window] = {}
    for window, cover in covers:
        alone = window.document_id not in cited and cover.suffices(sentence) and sentence.fresh <= cover.stems
        if (
            alone
            and _hangs_together(sentence, [(window, cover)])
            and (window.document_id not in best or len(window.text) < len(best[window.document_id].text))
        ):
            best[window.document_id] = window
    return list(best.values())[: max(0, SPANS - 1)]


def cite(draft: str, question: str, hits: Sequence[Hit], texts: Mapping[str, str]) -> Verified:
    """Verifies every sentence of a draft against the hits' passages.

    `texts` holds the stored text of every hit's document. In the result each supported sentence ends in its marks, numbered by first use;
    the others stay as they are and are listed in `unsupported`.
    """
    evidence = gather(hits, texts)
    known = names(question) | frozenset().union(*(later_names(window.text) for window in evidence.windows))
    told = frozenset(content_stems(question)).union(*(window.stems | window.title for window in evidence.windows))
    titles = {hit.passage.document_id: hit.passage.title for hit in hits if len(hit.passage.title) >= NAMED_TITLE}
    pieces: list[str] = []
    citations: dict[tuple[str, Span], Citation] = {}
    unsupported: list[str] = []
    borne_out: list[str] = []
    position = 0
    leads: bool | None = None
    for span in sentences(draft):
        written = draft[span.start : span.end]
        plain = without_marks(written).strip()
        pieces.append(draft[position : span.start])
        position = span.end
        if not WORD.search(plain):
            pieces.append(plain)
            continue
        found = _borne_out(plain, question, known, told, evidence, titles)
        leads = bool(found) if leads is None else leads
        for window in found:
            key = (window.document_id, window.span)
            if key not in citations:
                citations[key] = _citation(len(citations) + 1, hits[window.hit].passage, window.span, texts[window.document_id])
        marks = "".join(f"[{citations[window.document_id, window.span].number}]" for window in found)
        pieces.append(f"{plain} {marks}" if marks else plain)
        (borne_out if marks else unsupported).append(plain)
    pieces.append(without_marks(draft[position:]))
    return Verified("".join(pieces).strip(), tuple(citations.values()), tuple(unsupported), bool(leads), " ".join(borne_out))


def _borne_out(
    sentence: str, question: str, known: frozenset[str], told: frozenset[str], evidence: Evidence, titles: Mapping[str, str]
) -> list[Window]:
    """The windows that bear a sentence out. Where it names documents by their titles, each of those must do so, and no other is asked."""
    named = {document_id: title for document_id, title in titles.items() if title in sentence}
    without = sentence
    for title in sorted(named.values(), key=len, reverse=True):
        without = without.replace(title, " ")
    if not named or not content_stems(without):
        return support(claim(sentence, question, known, told), evidence)
    said = claim(without, question, known, told)
    found: list[Window] = []
    for document_id in named:
        inside = replace(evidence, windows=tuple(window for window in evidence.windows if window.document_id == document_id))
        windows = support(said, inside)
        if not windows:
            return []
        found += windows
    return found


def quote(hits: Sequence[Hit], texts: Mapping[str, str], spans: Sequence[tuple[int, Span]]) -> Verified:
    """An answer made of the documents' own sentences: each span, given with the number of its hit, becomes a line that cites itself."""
    citations = []
    for number, (hit, span) in enumerate(spans, 1):
        passage = hits[hit].passage
        citations.append(_citation(number, passage, span, texts[passage.document_id]))
    return Verified(
        "\n".join(f"{' '.join(without_marks(citation.quote).split())} [{citation.number}]" for citation in citations), tuple(citations), ()
    )


def without_marks(text: str) -> str:
    """A text without marks like [1], those that appear once others are gone included."""
    while (less := MARK.sub("", text)) != text:
        text = less
    return text


def _citation(number: int, passage: Passage, span: Span, text: str) -> Citation:
    page = max((page for offset, page in passage.pages if offset <= span.start), default=None)
    return Citation(number, passage.document_id, passage.title, passage.source, page, span.start, span.end, text[span.start : span.end])
