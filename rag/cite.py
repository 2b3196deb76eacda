"""From a draft to an answer whose every sentence is verified. Pure: no model, no store.

Each sentence of the draft is aligned with windows of one to three neighbouring sentences of the evidence. A window supports a sentence when it holds
the sentence's words, every number and every name in it, and does not say otherwise: who did it, what is counted, compared or denied stands where the sentence puts it. The model's own marks are dropped: small models forget or invent them.
This module alone builds a Citation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from index.split import sentences
from index.types import Hit, Passage, Span
from index.words import WORD, content_stems
from rag.facts import (
    alike,
    held_numbers,
    later_names,
    name_runs,
    names,
    negations,
    numbers,
    one_name,
    plain_opening,
    quantities,
    sets_the_scene,
    versions,
)
from rag.roles import Setting, denied, displaced, joined, setting
from rag.types import Citation
from rag.windows import Evidence, Window, gather

SUPPORT_FRESH = 0.6
SUPPORT = 0.5
"""The least part of a sentence's words that its spans must hold: of those that the question did not hold already, and of all."""

OWN = 0.4
"""The least part of a sentence's words that a window must hold itself before names told elsewhere count for it."""

NAMED_TITLE = 15
"""Characters; a shorter title in a sentence may be anything but the document's name."""

DISPLACED = 0.32
DENIED = 0.6
"""How much better, from 0 to 1, something else may fit a place than what the sentence puts there, and a denial on one side alone, before the evidence
says otherwise. Fitted on half of ClapNQ's questions."""

LENGTH = 0.004
"""What a character of a span costs, in words borne out."""

SPANS = 4
"""The most spans that one sentence may need together: a list can draw on several places."""

FOREIGN, FOREIGN_WORDS = 1 / 3, 6
"""A sentence of so many words that nothing bears out, less than this part of which stands anywhere in evidence or question, is not about the documents at all."""

STAND_INS = 8
"""How many of the windows nearest to a sentence are looked at for one that may stand in its place."""

_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s)\]>\"”]+|[\w.+-]+@[\w-]+\.[\w.-]*\w", re.IGNORECASE)

_OF_THE_PASSAGES = re.compile(r"\b(?:passages?|documents?|texts?|context|information)\b", re.IGNORECASE)

_SENTENCE = re.compile(r"\A(?![#|]).*(?:[.!…。！](?!\d)|\A[-*•].*)[^\w|]*\Z", re.DOTALL)
"""What tells a sentence, or an item of a list, from a heading or a row of a table."""

_PRONOUN = re.compile(r"\W*(?:it|they|he|she|this|these|those|its|their|his|her)\b", re.IGNORECASE)

MARK = re.compile(r"[ \t]*\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True, slots=True)
class Verified:
    """A draft after verification: its text with marks, the citations they resolve to, and the sentences that nothing supports.

    `leads`: the first sentence, which answers, is supported. `borne_out` are the supported sentences alone, without marks. `foreign` sentences, which
    the documents' words do not even resemble or which hold an address that is not theirs, are left out of the text.
    """

    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    leads: bool = False
    borne_out: str = ""
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a sentence of the draft says, as it is compared.

    `fresh` are the stems that the question did not hold. `subject` is the name that comes first; `bound` pairs each number with the name before it,
    `written` the numbers told by one expression with its stems: `12 March` is borne out by `2024-03-12`, in other words.
    """

    text: str
    stems: frozenset[str]
    fresh: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    subject: frozenset[str]
    bound: tuple[tuple[str, str], ...]
    written: tuple[tuple[frozenset[str], frozenset[str]], ...]
    setting: Setting


def claim(sentence: str, question: str, known: frozenset[str], told: frozenset[str]) -> Claim:
    """What a sentence says. `known` are names that evidence or question tell elsewhere than at a sentence's start, `told` all their stems."""
    stems = frozenset(stem for stem in content_stems(sentence) if not negations(stem))  # `hasn't` is told by `has not`
    found = names(sentence)
    expressions: dict[tuple[int, int], set[str]] = {}
    for start, end, quantity in quantities(sentence):
        expressions.setdefault((start, end), set()).add(quantity)
    opening = plain_opening(sentence)
    # `Improving …` is no name; but a first word that nobody told, where a subject stands, may be one that the model made up.
    if opening is not None and opening not in known and (opening in told or sets_the_scene(sentence)):
        found -= {opening}
    runs = [(at, [name for name in run if name in found]) for at, _, run in name_runs(sentence)]
    runs = [(at, run) for at, run in runs if run]
    before = [(quantity, [run[-1] for start, run in runs if start < at][-1:]) for at, _, quantity in quantities(sentence)]
    return Claim(
        sentence,
        stems,
        stems - frozenset(content_stems(question)),
        numbers(sentence),
        frozenset(found),
        frozenset(runs[0][1]) if runs else frozenset(),
        tuple((quantity, nearest[0]) for quantity, nearest in before if nearest),
        tuple((frozenset(told), frozenset(content_stems(sentence[start:end])) & stems) for (start, end), told in expressions.items()),
        setting((sentence,), known),
    )


def _held_names(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in wanted if name in there or any(one_name(name, other) for other in there))


def _held(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in wanted if word in there or any(alike(word, other) for other in there))


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
    if window.told and _PRONOUN.match(window.text):
        # `It` is what its paragraph told, and not what the whole document is about.
        inferred = _held_names(inferred, window.told)
        titled -= sentence.names - inferred
    siblings = evidence.siblings.get(window.document_id, {})
    inferred = frozenset(name for name in inferred if not siblings.get(name, frozenset()) & window.names)
    counted = held_numbers(sentence.numbers, window.numbers)
    own |= frozenset().union(*(stems for told, stems in sentence.written if told <= counted))
    return Cover(own | titled | (inferred & sentence.stems), counted, names_held, inferred)


def support(sentence: Claim, evidence: Evidence) -> tuple[list[Window], float]:
    """The fewest, smallest windows that together bear the sentence out, and one of each other document that does so alone; empty when nothing does.

    With them how well it is borne out, from 0 to 1: at least 0.5 exactly where there are windows.
    """
    whole = Cover(sentence.stems, sentence.numbers, sentence.names).worth(sentence)
    found = [
        (window, _cover(sentence, window, evidence), _contradiction(sentence, window.setting, window.setting, evidence))
        for window in evidence.windows
    ]
    nearest = max((cover.worth(sentence) * (1 - min(1.0, otherwise / 4)) for _, cover, otherwise in found), default=0.0)
    refused = 0.49 * min(1.0, nearest / whole) if whole else 0.0
    agreeing = [(window, cover) for window, cover, otherwise in found if otherwise <= 1]
    parts = _chosen(sentence, agreeing)
    if not parts or not _hangs_together(sentence, parts):
        return [], refused
    parts = _shrunk(sentence, parts, agreeing)
    windows = list(dict.fromkeys(window for window, _ in parts))
    # Pieces can be found that agree, while the sentence which says most plainly what this is about says otherwise.
    doubt = _contradiction(sentence, joined([window.setting for window in windows]), evidence.whole, evidence)
    if doubt > 1:
        return [], refused
    total = Cover()
    for _, cover in parts:
        total = total.joined(cover)
    sure = min(1.0, total.worth(sentence) / whole) * (1 - doubt / 2)
    return windows + _others(sentence, agreeing, {window.document_id for window in windows}), 0.5 + sure / 2


def _contradiction(sentence: Claim, source: Setting, rivals: Setting, evidence: Evidence) -> float:
    """How plainly the rivals say otherwise than the sentence, the source borne in mind; above 1 they contradict it."""
    return max(
        displaced(sentence.setting, source.places, evidence.whole.places, rivals.certain) / DISPLACED,
        denied(sentence.setting, source, rivals.gaps) / DENIED,
    )


def _chosen(sentence: Claim, covers: Sequence[tuple[Window, Cover]]) -> list[tuple[Window, Cover]]:
    """The windows that cover the sentence together, none where that takes too many. Greedy: the window that adds most comes first.

    Length costs a little; ties go to the better hit.
    """
    parts: list[tuple[Window, Cover]] = []
    total = Cover()
    while not total.suffices(sentence):
        ranked = [
            (total.joined(cover).worth(sentence) - total.worth(sentence) - LENGTH * len(window.text), -window.hit, window, cover)
            for window, cover in covers
            if cover.stems and (not parts or _earns(total, cover, sentence))
        ]
        gain, _, window, cover = max(ranked, key=lambda entry: entry[:2], default=(0.0, 0, None, Cover()))
        if gain <= 0 or window is None or len(parts) == SPANS:
            return []
        parts.append((window, cover))
        total = total.joined(cover)
    return parts


def _shrunk(sentence: Claim, parts: list[tuple[Window, Cover]], covers: Sequence[tuple[Window, Cover]]) -> list[tuple[Window, Cover]]:
    """The windows, each cut down to the shortest one inside it with which the sentence is still borne out."""
    for number, (window, _) in enumerate(parts):
        inside = [
            (part, cover)
            for part, cover in covers
            if part.document_id == window.document_id
            and window.span.start <= part.span.start
            and part.span.end <= window.span.end
            and len(part.text) < len(window.text)
        ]
        for shorter in sorted(inside, key=lambda entry: len(entry[0].text)):
            tried = [*parts[:number], shorter, *parts[number + 1 :]]
            total = Cover()
            for _, cover in tried:
                total = total.joined(cover)
            if total.suffices(sentence) and _hangs_together(sentence, tried):
                parts = tried
                break
    return parts


def _hangs_together(sentence: Claim, parts: Sequence[tuple[Window, Cover]]) -> bool:
    """Whether windows that bear a sentence out together do not merely hold its pieces: `Kestrel`, and far from it somebody else's `15 days`.

    The subject must stand where much of the sentence is borne out, and each number by the name that it follows.
    """
    if sentence.subject:
        predicate = sentence.fresh - sentence.subject
        foremost, leading = max(parts, key=lambda part: len(part[1].stems & predicate))
        if _speaks_of_it(foremost, predicate) and not sentence.subject <= _held_names(
            sentence.subject, leading.names | leading.inferred | (foremost.told or foremost.context) | foremost.stems
        ):
            return False  # what is said most plainly is said of `it`, and nothing before tells that this is the subject
        told = any(
            _tells_subject(sentence, window, cover)
            and (cover is leading or len((cover.stems & sentence.fresh | cover.names) - sentence.subject) + len(cover.numbers) >= 2)
            for window, cover in parts
        )
        if not told:
            return False
    # The number of another name's version bears nothing out: `Merlin 4.5` tells of no Kestrel 4.5.
    told_versions = frozenset().union(*(versions(window.text) for window, _ in parts))
    for name, number in versions(sentence.text):
        bearers = {other for other, told_number in told_versions if told_number == number}
        if bearers and name not in bearers:
            return False
    return all(any(number in cover.numbers and name in cover.names | cover.inferred for _, cover in parts) for number, name in sentence.bound)


def _speaks_of_it(window: Window, predicate: frozenset[str]) -> bool:
    """Whether the sentence of a window that says most of a predicate opens with a pronoun."""
    said = [len(_held(predicate, line)) for line in window.lines]
    written = sentences(window.text)
    # Cut anew, a window can fall into other sentences than its paragraph did.
    at = said.index(max(said)) if said and len(written) == len(said) else 0
    return bool(written) and bool(_PRONOUN.match(window.text[written[at].start :]))


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


@dataclass(frozen=True, slots=True)
class Grounds:
    """What sentences are verified against: the hits with their documents' texts, the evidence in them, the names that it or the question tell, all their
    stems, and the documents' titles."""

    question: str
    hits: tuple[Hit, ...]
    texts: Mapping[str, str]
    evidence: Evidence
    known: frozenset[str]
    told: frozenset[str]
    titles: Mapping[str, str]


def grounds(question: str, hits: Sequence[Hit], texts: Mapping[str, str]) -> Grounds:
    """What sentences that answer the question are verified against. `texts` holds the stored text of every hit's document."""
    evidence = gather(hits, texts)
    known = names(question) | frozenset().union(*(later_names(window.text) for window in evidence.windows))
    told = frozenset(content_stems(question)).union(*(window.stems | window.title for window in evidence.windows))
    titles = {hit.passage.document_id: hit.passage.title for hit in hits if len(hit.passage.title) >= NAMED_TITLE}
    return Grounds(question, tuple(hits), texts, evidence, known, told, titles)


def certainty(sentence: str, against: Grounds) -> float:
    """How well the evidence bears a sentence out, from 0 to 1: at least 0.5 exactly where cite() would cite it."""
    return _borne_out(without_marks(sentence).strip(), against)[1]


def cite(draft: str, against: Grounds) -> Verified:
    """Verifies every sentence of a draft against what was read.

    In the result each supported sentence ends in its marks, numbered by first use; the others stay as they are and are listed in `unsupported`.
    """
    pieces: list[str] = []
    citations: dict[tuple[str, Span], Citation] = {}
    unsupported: list[str] = []
    borne_out: list[str] = []
    foreign: list[str] = []
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
        found, _ = _borne_out(plain, against)
        made_up = _is_foreign(plain, against, bool(found))
        leads = bool(found) and not made_up if leads is None else leads
        if made_up:
            pieces.pop()
            foreign.append(plain)
            continue
        for window in found:
            key = (window.document_id, window.span)
            if key not in citations:
                citations[key] = _citation(len(citations) + 1, against.hits[window.hit].passage, window.span, against.texts[window.document_id])
        marks = "".join(f"[{citations[window.document_id, window.span].number}]" for window in found)
        pieces.append(f"{plain} {marks}" if marks else plain)
        (borne_out if marks else unsupported).append(plain)
    pieces.append(without_marks(draft[position:]))
    return Verified("".join(pieces).strip(), tuple(citations.values()), tuple(unsupported), bool(leads), " ".join(borne_out), tuple(foreign))


def _is_foreign(sentence: str, against: Grounds, supported: bool) -> bool:
    """Whether a sentence is none that could come from the evidence, as when a planted instruction was followed."""
    read = " ".join(window.text for window in against.evidence.windows).lower()
    if any(
        address.lower().rstrip(".,;:!?") not in read and address.lower() not in against.question.lower() for address in _ADDRESS.findall(sentence)
    ):
        return True
    stems = frozenset(content_stems(sentence))
    return not supported and len(stems) >= FOREIGN_WORDS and len(stems & against.told) < FOREIGN * len(stems)


def _borne_out(sentence: str, against: Grounds) -> tuple[list[Window], float]:
    """The windows that bear a sentence out, and how well. Where it names documents by their titles, each of those must do so, and no other is asked."""
    evidence = against.evidence
    named = {document_id: title for document_id, title in against.titles.items() if title in sentence}
    without = sentence
    for title in sorted(named.values(), key=len, reverse=True):
        without = without.replace(title, " ")
    if not named or not content_stems(without):
        return support(claim(sentence, against.question, against.known, against.told), evidence)
    said = claim(without, against.question, against.known, against.told)
    found: list[Window] = []
    score = 1.0
    for document_id in named:
        inside = replace(evidence, windows=tuple(window for window in evidence.windows if window.document_id == document_id))
        windows, sure = support(said, inside)
        if not windows:
            return [], sure
        found += windows
        score = min(score, sure)
    return found, score


def quote(hits: Sequence[Hit], texts: Mapping[str, str], spans: Sequence[tuple[int, Span]]) -> Verified:
    """An answer made of the documents' own sentences: each span, given with the number of its hit, becomes a line that cites itself."""
    citations = []
    for number, (hit, span) in enumerate(spans, 1):
        passage = hits[hit].passage
        citations.append(_citation(number, passage, span, texts[passage.document_id]))
    lines = [" ".join(without_marks(citation.quote).split()) for citation in citations]
    # A span of several sentences carries its mark behind each of them: no sentence stands without one.
    marked = "\n".join(
        " ".join(f"{line[span.start : span.end]} [{citation.number}]" for span in sentences(line))
        for line, citation in zip(lines, citations, strict=True)
    )
    return Verified(marked, tuple(citations), (), bool(lines), " ".join(lines))


def nearest(sentence: str, against: Grounds, about: Callable[[Sequence[str]], Sequence[bool]]) -> Verified | None:
    """The documents' own words that come nearest to a sentence that they do not bear out as it stands, cited; None where nothing is near.

    They must speak of what is asked, in its words or as `about` tells of some texts, and hold something of what the sentence answers, and ask nothing
    themselves: a draft can have followed what was planted in a document. A sentence about what the passages leave out answers nothing.
    """
    if negations(sentence) and _OF_THE_PASSAGES.search(sentence):
        return None
    said = claim(without_marks(sentence).strip(), against.question, against.known, against.told)

    def closeness(window: Window, cover: Cover) -> float:
        otherwise = min(1.0, _contradiction(said, window.setting, window.setting, against.evidence) / 2)
        return cover.worth(said) - 3 * LENGTH * len(window.text) - 2 * otherwise

    asked = frozenset(content_stems(against.question))
    telling = [window for window in against.evidence.windows if _SENTENCE.search(window.text) and "?" not in window.text]
    covers = [(window, _cover(said, window, against.evidence)) for window in telling]
    # What a window leaves to a pronoun (`the role`) counts here as it would where a whole sentence were borne out.
    holding = [
        (window, cover)
        for window, cover in covers
        if (cover.stems & said.fresh or cover.numbers) and len(cover.stems | said.stems & window.context) >= OWN * len(said.stems)
    ]
    best = sorted(holding, key=lambda entry: closeness(*entry), reverse=True)[:STAND_INS]
    near = about([window.text for window, _ in best])
    for (window, _), is_near in zip(best, near, strict=True):
        if is_near or len(asked & (window.stems | window.title | window.context)) >= OWN * len(asked):
            return quote(against.hits, against.texts, [(window.hit, window.span)])
    return None


def repeats(one: Verified, other: Verified) -> bool:
    """Whether all that a text cites stands inside what another cites."""
    return all(
        any(cited.document_id == there.document_id and there.start <= cited.start and cited.end <= there.end for there in other.citations)
        for cited in one.citations
    )


def merged(parts: Sequence[Verified]) -> Verified:
    """Several verified texts as one: citations numbered anew by first use, the same span once. The first part leads."""
    citations: dict[tuple[str, int, int], Citation] = {}
    texts: list[str] = []
    for part in parts:
        own = {citation.number: citation for citation in part.citations}

        def renumbered(mark: re.Match[str], own: dict[int, Citation] = own) -> str:
            cited = own.get(int(mark.group(1)))
            if cited is None:
                return mark.group()
            key = (cited.document_id, cited.start, cited.end)
            if key not in citations:
                citations[key] = replace(cited, number=len(citations) + 1)
            return f"[{citations[key].number}]"

        texts.append(re.sub(r"\[(\d+)\]", renumbered, part.text))
    return Verified(
        "\n\n".join(texts),
        tuple(citations.values()),
        tuple(sentence for part in parts for sentence in part.unsupported),
        parts[0].leads,
        " ".join(part.borne_out for part in parts if part.borne_out),
        tuple(sentence for part in parts for sentence in part.foreign),
    )


def pointing(sentence: str, answers: Sequence[Verified]) -> Verified:
    """A sentence of our own about some answers, with marks that lead to the first words that each of them cites."""
    citations = tuple(replace(answer.citations[0], number=number) for number, answer in enumerate(answers, 1))
    return Verified(f"{sentence} {''.join(f'[{citation.number}]' for citation in citations)}", citations, ())


def named(title: str) -> str:
    """A title as it can stand within a sentence of ours: without marks and without ends of sentences."""
    plain = without_marks(title)
    return " – ".join(plain[span.start : span.end].strip().rstrip(".!?…。！？") for span in sentences(plain)) or plain


def first_sentence(text: str) -> str:
    """The first sentence of a text, which answers."""
    first = next(iter(sentences(text)), Span(0, len(text)))
    return text[first.start : first.end]


def without_marks(text: str) -> str:
    """A text without marks like [1], those that appear once others are gone included."""
    while (less := MARK.sub("", text)) != text:
        text = less
    return text


def _citation(number: int, passage: Passage, span: Span, text: str) -> Citation:
    page = max((page for offset, page in passage.pages if offset <= span.start), default=None)
    return Citation(number, passage.document_id, passage.title, passage.source, page, span.start, span.end, text[span.start : span.end])
