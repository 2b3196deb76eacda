"""A stand-in for the assistant: it has the same members, needs no model, and does what its questions tell it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from index.errors import InvalidQuestion
from index.types import DocumentInfo, Hit, Passage, Span
from rag.types import Answer, Citation, Event, Evidence, Timings, Token, Turn, Usage

HARBOUR = "\n\n".join(
    (
        "Harbour Light Ferry: notes for passengers",
        "The Harbour Light runs between Aldmouth and the island of Serrin. It makes six crossings on weekdays and four on Sundays. "
        "The crossing takes 42 minutes in calm weather.",
        "Tickets",
        "A single ticket costs 7.50 and a return 12.00. Children under twelve travel free of charge when they are with an adult. "
        "Bicycles are carried for 2.00 each, at most ten to a crossing.",
        "Weather",
        "In winds above force 8 the ferry does not sail. Passengers whose crossing is cancelled may use their ticket on any day of the "
        "following month, or have it refunded at the quay. The skipper's decision is final.",
        "The ship",
        "The present ship was built in Gdansk in 2014 and carries 180 passengers. She replaced the Serrin Belle, which had served the island "
        "since 1961. Two electric motors drive her in the harbour, and two diesel engines at sea.\n",
    )
)
ARCHIVE = "The town archive of Aldmouth\n\n" + "\n".join(
    f"Entry {number}. A letter of the harbour master about dues, repairs and the tides of that year, kept in box {number % 40}."
    for number in range(1, 30_001)
)
HOSTILE = (
    "Minutes <script>window.hacked = 1</script>\n\n"
    'The "chair" said: <img src="http://outside.example/x.png" onerror="window.hacked = 1"> ${1+1} {{value}} & left.\n'
)

FERRY = "a1f0-ferry"
TOWN = "b2/archive"
MINUTES = "c3'minutes\""

TEXTS = {FERRY: HARBOUR, TOWN: ARCHIVE, MINUTES: HOSTILE}
TITLES = {
    FERRY: "Harbour Light Ferry: notes for passengers",
    TOWN: "The town archive of Aldmouth",
    MINUTES: 'Minutes <script>window.hacked = 1</script> "A"',
}
SOURCES = {FERRY: "travel/harbour-light.md", TOWN: "town/archive.txt", MINUTES: "town/minutes & more.md"}
STARTERS = ("How long does the crossing take?", "What happens when the wind is too strong?", "Who built the ship?")


def hit(document_id: str, text: str, heading: str = "", score: float = 1.0) -> Hit:
    """The passage of a document that begins and ends with `text`."""
    start = TEXTS[document_id].index(text)
    span = Span(start, start + len(text))
    return Hit(Passage(f"{document_id}:{start}", document_id, SOURCES[document_id], TITLES[document_id], heading, span, text), score)


def cited(number: int, document_id: str, quote: str) -> Citation:
    start = TEXTS[document_id].index(quote)
    return Citation(number, document_id, TITLES[document_id], SOURCES[document_id], None, start, start + len(quote), quote)


def passage(document_id: str, first: str, last: str) -> str:
    text = TEXTS[document_id]
    return text[text.index(first) : text.index(last) + len(last)]


HITS = (
    hit(FERRY, passage(FERRY, "The Harbour Light runs", "in calm weather."), "Harbour Light Ferry: notes for passengers"),
    hit(FERRY, passage(FERRY, "In winds above", "decision is final."), "Weather"),
    hit(FERRY, passage(FERRY, "The present ship", "at sea."), "The ship"),
    hit(TOWN, passage(TOWN, "Entry 29001.", "Entry 29004. A letter")[:-23].rstrip(), "Letters"),
    hit(MINUTES, HOSTILE.strip(), "Minutes"),
)
DRAFT = (
    "The crossing takes 42 minutes in calm weather. In winds above force 8 the ferry does not sail, and a cancelled ticket can be used in the "
    "following month or refunded.\n\n- The ship was built in Gdansk in 2014.\n- She is painted green.\n\nOne letter about it is kept in the archive."
)
TEXT = (
    "The crossing takes 42 minutes in calm weather. [1] In winds above force 8 the ferry does not sail, and a cancelled ticket can be used in the "
    "following month or refunded. [2][3]\n\n- The ship was built in Gdansk in 2014. [4]\n- She is painted green.\n\n"
    "One letter about it is kept in the archive. [5]"
)
CITATIONS = (
    cited(1, FERRY, "The crossing takes 42 minutes in calm weather."),
    cited(2, FERRY, "In winds above force 8 the ferry does not sail."),
    cited(
        3, FERRY, "Passengers whose crossing is cancelled may use their ticket on any day of the following month, or have it refunded at the quay."
    ),
    cited(4, FERRY, "The present ship was built in Gdansk in 2014"),
    cited(5, TOWN, "Entry 29001. A letter of the harbour master about dues, repairs and the tides of that year, kept in box 1."),
)


@dataclass
class Status:
    state: str = "ready"
    message: str = ""
    name: str = "Fake 1B"


class FakeStore:
    """Three documents, one of them several megabytes long, one of them hostile."""

    def documents(self) -> list[DocumentInfo]:
        return [self.info(document_id) for document_id in TEXTS]

    def info(self, document_id: str) -> DocumentInfo:
        text = TEXTS[document_id]
        return DocumentInfo(document_id, SOURCES[document_id], TITLES[document_id], len(text), max(1, len(text) // 400), "2026-01-01T00:00:00+00:00")

    def text(self, document_id: str) -> str:
        return TEXTS[document_id]


@dataclass
class FakeAssistant:
    """Answers any question from the harbour notes; "slow", "forbidden", "crash" and "unknown" in a question change how."""

    status: Status = field(default_factory=Status)
    reading_seconds: float = 0.6
    token_seconds: float = 0.02
    store: FakeStore = field(default_factory=FakeStore)
    asked: list[tuple[str, tuple[Turn, ...]]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def stream(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Iterator[Event]:
        self.asked.append((question, tuple(history)))
        if "forbidden" in question:
            raise InvalidQuestion("The question is too long: shorten it to 4,000 characters.")
        standalone = question if not history else "About the ferry: " + question
        time.sleep(0.2)
        hits = () if "nothing" in question else HITS
        yield Evidence(standalone, hits)
        if "crash" in question:
            raise RuntimeError("secret path /srv/citewell/model.gguf")
        timings = Timings(40.0, 900.0, 13_400.0)
        if "unknown" in question or not hits:
            text = "The documents do not say. I looked at five passages of three documents, among them the notes for passengers."
            yield Answer(question, standalone, text, True, (), (), hits, "Fake 1B", timings, Usage())
            return
        time.sleep(self.reading_seconds)
        pause = 0.25 if "slow" in question else self.token_seconds
        try:
            for word in DRAFT.split(" "):
                yield Token(word + " ")
                time.sleep(pause)
        except GeneratorExit:
            self.closed.set()
            raise
        notices = ("The model's answer was cut off at its length limit.",) if "notice" in question else ()
        yield Answer(question, standalone, TEXT, False, CITATIONS, ("She is painted green.",), hits, "Fake 1B", timings, Usage(400, 60), notices)

    def model_status(self) -> Status:
        return self.status

    def starters(self) -> tuple[str, ...]:
        return STARTERS
