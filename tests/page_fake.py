"""A stand-in for the assistant: it has the same members, needs no model, and does what its questions tell it to."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from index.errors import CitewellError, InvalidQuestion, NotAllowed, OverLimit
from index.people import open_people
from index.read import document_id
from index.schema import UPLOADS
from index.sync import REMOVED_BY_HAND
from index.types import DocumentInfo, Hit, Passage, Rejection, Span
from rag.accounts import LOCAL_USER, User
from rag.conversations import Conversations
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

REPORT_PAGES = (
    "Annual report of the harbour board\n\nPrepared for the members. Aldmouth, March 2026.\n",
    "The board met eleven times. It had the north quay rebuilt for 1.4 million, and\nthe light at Serrin Head was renewed.\n",
    "",
    "Accounts\n\nIncome from dues was 612,000. Repairs cost 188,000.\n",
)
REPORT_TEXT = "\f".join(REPORT_PAGES)
ARTICLE = (
    "Home  News  Weather  Sign in\n\nThe tide clock is mended\n\nAfter nine years the tide clock on the quay shows the right time again. "
    "The work was paid for by the members.\n\nRelated stories: Ten ferries you should know\nSign up for our letter\n"
)

FERRY = "a1f0-ferry"
TOWN = "b2/archive"
MINUTES = "c3'minutes\""
REPORT = "d4-report"
CLOCK = "e5-clock"

TEXTS = {FERRY: HARBOUR, TOWN: ARCHIVE, MINUTES: HOSTILE, REPORT: REPORT_TEXT, CLOCK: ARTICLE}
PAGES = {REPORT: tuple(sum(len(page) + 1 for page in REPORT_PAGES[:number]) for number in range(len(REPORT_PAGES)))}
FURNITURE = {CLOCK: (Span(0, ARTICLE.index("The tide")), Span(ARTICLE.index("Related"), len(ARTICLE)))}
TITLES = {
    FERRY: "Harbour Light Ferry: notes for passengers",
    TOWN: "The town archive of Aldmouth",
    MINUTES: 'Minutes <script>window.hacked = 1</script> "A"',
    REPORT: "Annual report of the harbour board",
    CLOCK: "The tide clock is mended",
}
SOURCES = {
    FERRY: "travel/harbour-light.md",
    TOWN: "town/archive.txt",
    MINUTES: "town/minutes & more.md",
    REPORT: "town/report.pdf",
    CLOCK: "town/clock.html",
}
BYTES = {FERRY: 1_204, TOWN: 3_400_000, MINUTES: 0, REPORT: 812_345, CLOCK: 41_000}
TIMES = {FERRY: "2026-01-04T10:00:00+00:00", TOWN: "2026-01-03T10:00:00+00:00", MINUTES: "2026-01-02T10:00:00+00:00"}
LONG_AGO = "2026-01-01T00:00:00+00:00"
FOLDER = "/home/someone/documents"
STARTERS = ("How long does the crossing take?", "What happens when the wind is too strong?", "Who built the ship?")


def hit(document_id: str, text: str, heading: str = "", score: float = 1.0) -> Hit:
    """The passage of a document that begins and ends with `text`."""
    start = TEXTS[document_id].index(text)
    span = Span(start, start + len(text))
    return Hit(Passage(f"{document_id}:{start}", document_id, SOURCES[document_id], TITLES[document_id], heading, span, text), score)


def cited(number: int, document_id: str, quote: str) -> Citation:
    start = TEXTS[document_id].index(quote)
    page = sum(offset <= start for offset in PAGES[document_id]) if document_id in PAGES else None
    return Citation(number, document_id, TITLES[document_id], SOURCES[document_id], page, start, start + len(quote), quote)


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
QUAY = "It had the north quay rebuilt for 1.4 million, and\nthe light at Serrin Head was renewed."
REPORT_CITATIONS = (cited(1, REPORT, QUAY),)
REPORT_HITS = tuple(
    replace(found, passage=replace(found.passage, pages=((found.passage.span.start, 2),)))
    for found in (hit(REPORT, passage(REPORT, "The board met", "was renewed."), "Annual report"),)
)


@dataclass
class Status:
    state: str = "ready"
    message: str = ""
    name: str = "Fake 1B"


@dataclass(frozen=True)
class Stored:
    info: DocumentInfo
    text: str
    pages: tuple[int, ...] = ()
    furniture: tuple[Span, ...] = ()


def seeded(document_id: str) -> Stored:
    text, pages = TEXTS[document_id], PAGES.get(document_id, ())
    info = DocumentInfo(
        document_id,
        SOURCES[document_id],
        TITLES[document_id],
        len(text),
        max(1, len(text) // 400),
        TIMES.get(document_id, LONG_AGO),
        FOLDER,
        BYTES[document_id],
        len(pages),
    )
    return Stored(info, text, pages, FURNITURE.get(document_id, ()))


class FakeStore:
    """Five documents: one several megabytes long, one hostile, one with pages, one with furniture; and what a FakeLibrary adds."""

    def __init__(self) -> None:
        self.stored = {document_id: seeded(document_id) for document_id in TEXTS}
        self.rejected: dict[tuple[str, str], Rejection] = {}
        self.told: tuple[str, ...] = ()

    def documents(self) -> list[DocumentInfo]:
        return [stored.info for stored in list(self.stored.values())]

    def latest(self, count: int) -> list[DocumentInfo]:
        return sorted(self.documents(), key=lambda info: info.indexed_at, reverse=True)[:count]

    def document_count(self) -> int:
        return len(self.stored)

    def ids_of(self, names: Sequence[str]) -> dict[str, list[str]]:
        known = [(name, info.id) for info in self.documents() for name in {info.id, info.source} & {*names}]
        return {name: [one for named, one in known if named == name] for name, _ in known}

    def info(self, document_id: str) -> DocumentInfo:
        return self.stored[document_id].info

    def text(self, document_id: str) -> str:
        return self.stored[document_id].text

    def pages(self, document_id: str) -> tuple[int, ...]:
        return self.stored[document_id].pages

    def furniture(self, document_id: str) -> tuple[Span, ...]:
        return self.stored[document_id].furniture

    def rejections(self) -> list[Rejection]:
        return list(self.rejected.values())

    def notices(self) -> tuple[str, ...]:
        return self.told

    @property
    def index_state(self) -> str:
        return "ready"

    def reject(self, root: str, source: str, reason: str) -> None:
        self.rejected[root, source] = Rejection(root, source, reason, datetime.now(UTC).isoformat())

    def fill(self, number: int) -> None:
        """So many more documents."""
        sample = self.stored[FERRY].info
        for count in range(1, number + 1):
            source = f"letters/{count // 100:03}/letter-{count:05}.txt"
            info = replace(sample, id=f"letter-{count:05}", source=source, title=f"Letter {count:,} of the harbour master", indexed_at=LONG_AGO)
            self.stored[info.id] = Stored(info, HARBOUR)


@dataclass(frozen=True)
class FakeWork:
    what: str
    done: int
    total: int
    current: str = ""
    files_per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class FakeReport:
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    rejected: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False


@dataclass(frozen=True)
class FakeOutcome:
    what: str
    report: FakeReport | None
    problem: str = ""


class FakeLibrary:
    """Takes `file_seconds` for each file, one after the other in a thread; a file whose bytes hold "broken" is rejected."""

    own_root = UPLOADS

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.file_seconds = 0.3
        self.reason = "it is no PDF, whatever its name says"
        self.calls: list[tuple[str, object]] = []
        self.shown: FakeWork | None = None
        self._queue: list[tuple[str, str, str | None]] = []
        self._ended: list[FakeOutcome] = []
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def add(self, name: str, path: Path) -> str:
        if not name.strip():
            raise CitewellError("A file needs a name: give it one, and add it again.")
        content = path.read_bytes().decode("utf-8", "replace")
        source = PurePosixPath(name.replace("\\", "/")).name
        self.calls.append(("add", source))
        self._put(UPLOADS, source, content)
        return source

    def room(self, replaced: Collection[str] = ()) -> int:
        return 1_000_000_000

    def uploading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def remove(self, document_ids: Sequence[str]) -> None:
        self.calls.append(("remove", tuple(document_ids)))
        for key in document_ids:
            info = self.store.stored.pop(key).info
            if info.root != UPLOADS:
                self.store.reject(info.root, info.source, REMOVED_BY_HAND)

    def share(self, document_id: str, shared: bool) -> None:
        self.calls.append(("share", (document_id, shared)))

    def discard(self, root: str, source: str) -> None:
        self.calls.append(("discard", (root, source)))
        del self.store.rejected[root, source]

    def retry(self, root: str, source: str) -> None:
        self.calls.append(("retry", (root, source)))
        self._put(root, source, "Mended meanwhile.\n")

    def cancel(self) -> None:
        self.calls.append(("cancel", None))
        self._cancelled.set()

    def work(self) -> FakeWork | None:
        return self.shown

    def waiting(self) -> tuple[tuple[str, str], ...]:
        return tuple((root, source) for root, source, _ in list(self._queue))

    def outcomes(self) -> tuple[FakeOutcome, ...]:
        return tuple(self._ended[::-1][:5])

    def size(self, root: str, source: str) -> int | None:
        return 4_321 if root == UPLOADS else None

    def _put(self, root: str, source: str, content: str | None) -> None:
        with self._lock:
            self._queue.append((root, source, content))
            if self.shown is None:
                self._cancelled.clear()
                self.shown = FakeWork("Adding 1 file", 0, 1, source)
                threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        added: list[str] = []
        changed: list[str] = []
        rejected: dict[str, str] = {}
        while True:
            with self._lock:
                done = len(added) + len(changed) + len(rejected)
                if not self._queue or self._cancelled.is_set():
                    self._queue.clear()
                    report = FakeReport(tuple(added), tuple(changed), (), (), rejected, self._cancelled.is_set())
                    self._ended.append(FakeOutcome(f"Adding {done} {'file' if done == 1 else 'files'}", report))
                    self.shown = None
                    return
                root, source, content = self._queue[0]
                total = done + len(self._queue)
                self.shown = FakeWork(
                    f"Adding {total} {'file' if total == 1 else 'files'}",
                    done,
                    total,
                    source,
                    1 / max(self.file_seconds, 0.01),
                    self.file_seconds * (total - done),
                )
            self._cancelled.wait(self.file_seconds)
            if self._cancelled.is_set():
                continue
            with self._lock:
                self._queue.pop(0)
            if content is None or "broken" in content:
                self.store.reject(root, source, self.reason)
                rejected[source] = self.reason
                continue
            self.store.rejected.pop((root, source), None)
            key = document_id(root, source)
            (changed if key in self.store.stored else added).append(source)
            info = DocumentInfo(key, source, source, len(content), 1, datetime.now(UTC).isoformat(), root, len(content.encode()), 0)
            self.store.stored[key] = Stored(info, content)


@dataclass
class FakeSettings:
    max_bytes: int = 25_000_000
    add_urls: bool = False
    data_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="citewell-page-")))


@dataclass
class FakeAssistant:
    """Answers any question from the harbour notes; "slow", "forbidden", "crash", "unknown", "ambiguous" and "report" in a question change how."""

    status: Status = field(default_factory=Status)
    reading_seconds: float = 0.6
    token_seconds: float = 0.02
    store: FakeStore = field(default_factory=FakeStore)
    settings: FakeSettings = field(default_factory=FakeSettings)
    asked: list[tuple[str, tuple[Turn, ...]]] = field(default_factory=list)
    narrowed: list[tuple[str, ...] | None] = field(default_factory=list)
    drawn: list[tuple[str, int, int, int]] = field(default_factory=list)
    changed: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.library = FakeLibrary(self.store)

    def stream(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Iterator[Event]:
        self.asked.append((question, tuple(history)))
        self.narrowed.append(None if documents is None else tuple(documents))
        if "forbidden" in question:
            raise InvalidQuestion("The question is too long: shorten it to 4,000 characters.")
        standalone = question if not history else "About the ferry: " + question
        time.sleep(0.2)
        hits = () if "nothing" in question else REPORT_HITS if "report" in question else HITS
        yield Evidence(standalone, hits)
        if "crash" in question:
            raise RuntimeError("secret path /srv/citewell/model.gguf")
        timings = Timings(40.0, 900.0, 13_400.0)
        if "unknown" in question or not hits:
            text = "The documents do not say. I looked at five passages of three documents, among them the notes for passengers."
            yield Answer(question, standalone, text, True, (), (), hits, "Fake 1B", timings, Usage())
            return
        if "ambiguous" in question:
            text = "Which ship do you mean: the Harbour Light or the Serrin Belle?"
            yield Answer(question, standalone, text, True, (), (), hits, "none", timings, Usage(), asks_back=True)
            return
        time.sleep(self.reading_seconds)
        if "report" in question:
            yield Answer(question, standalone, "The north quay was rebuilt. [1]", False, REPORT_CITATIONS, (), hits, "Fake 1B", timings, Usage())
            return
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

    def add_url(self, url: str) -> tuple[str, str]:
        """Takes any page but those whose address holds "inner"."""
        if not self.settings.add_urls:
            raise NotAllowed("Adding pages by their address is turned off.")
        if "inner" in url:
            raise CitewellError("This address is not fetched.")
        source = url.partition("://")[2].replace("/", "_") + "-0123456789.html"
        self.library.calls.append(("url", url))
        self.library._put(UPLOADS, source, "Words of a page.\n")
        return source, "0" * 64

    def page_image(self, document_id: str, page: int, start: int, end: int) -> bytes:
        """A picture of the page's words, its quote on yellow."""
        from PIL import Image, ImageDraw, ImageFont

        self.drawn.append((document_id, page, start, end))
        stored = self.store.stored[document_id]
        if not 1 <= page <= len(stored.pages):
            raise KeyError(page)
        if self.changed:
            raise CitewellError("The file has changed since it was indexed: sync it, and open the page again.")
        bounds = [*stored.pages, len(stored.text)]
        image = Image.new("RGB", (900, 1160), "white")
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(22)
        y, offset = 90, bounds[page - 1]
        for line in stored.text[bounds[page - 1] : bounds[page]].split("\n"):
            first, last = max(start - offset, 0), min(end - offset, len(line))
            if first < last:
                draw.rectangle((80 + draw.textlength(line[:first], font), y, 80 + draw.textlength(line[:last], font), y + 28), fill=(255, 235, 80))
            draw.text((80, y), line.strip("\f"), fill="black", font=font)
            y, offset = y + 38, offset + len(line) + 1
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()

    def model_status(self) -> Status:
        return self.status

    def starters(self) -> tuple[str, ...]:
        return STARTERS


class FakeAnswering(Iterator[Event]):
    """The events of a stream, and as many questions before it as there are said to be."""

    def __init__(self, events: Iterator[Event], service: FakeService) -> None:
        self._events, self._service = events, service

    @property
    def ahead(self) -> int:
        return self._service.ahead

    def __next__(self) -> Event:
        while self._service.ahead:
            time.sleep(0.02)
        return next(self._events)

    def close(self) -> None:
        with suppress(ValueError):
            self._events.close()  # type: ignore[attr-defined]


class FakeService:
    """A server that everybody has the one fake assistant of. Conversations are really kept, in the fake's data folder."""

    def __init__(self, assistant: FakeAssistant) -> None:
        self.assistant = assistant
        self.open = True
        self.places = 84
        self.ahead = 0
        self.full = False
        self.visitors = SimpleNamespace(accounts=None)
        self.conversations = Conversations(open_people(assistant.settings.data_dir))

    def user(self, scope: Mapping[str, Any]) -> User:
        """Whoever stands in the scope, as rag.access.SignedIn writes it there; else the one user of an open Citewell."""
        return (scope.get("state") or {}).get("user") or LOCAL_USER

    def own(self, scope: Mapping[str, Any]) -> FakeAssistant:
        return self.assistant

    def stream(
        self, door: str, own: FakeAssistant, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None
    ) -> FakeAnswering:
        if self.full:
            raise OverLimit("Too many questions are waiting: 21 are being answered or wait for it. Try again in 15 seconds.", 15.0)
        return FakeAnswering(own.stream(question, history, documents), self)
