"""Conversations as they are kept: questions with their answers and quotes, found by words, judged, exported. What is stored is never changed by what
becomes of a document later: citations_now() tells how the two compare."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from uuid import uuid4

from index.database import Database
from index.errors import CitewellError, OverLimit, StoreDamaged
from index.schema import checksum
from rag.accounts import LOCAL
from rag.cite import MARK
from rag.types import Answer, Turn

TITLE_LENGTH = 120
"""Of a title, so many characters are kept; a conversation that was given none is called by its first question."""

REASON_LENGTH = 2_000
SEARCHED_WORDS = 20
MOST_CONVERSATIONS = 2_000
"""Of one user; whoever has the machine to themselves fills no disk but their own."""

MOST_EXCHANGES = 1_000
"""Of one conversation: it is drawn, and what is searched of it is written, as a whole."""

AT_ONCE = 200
"""So many conversations are listed at most at a time."""

Verdict = Literal["", "right", "wrong"]
State = Literal["unchanged", "changed", "gone", "unavailable"]
"""Of a quote or passage against its document. `unavailable` is what a reader of a shared conversation is told of a document that they cannot open: whether it
is there is not theirs to know."""

_WORDS = re.compile(r"[^\W_]+")
"""Of what FTS5's tokenizer makes words too, to which an underscore is no letter."""


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """What a listing says of a conversation: `created` and `changed` are ISO 8601 in UTC, `owner` is a user's id, `snippet` what a search found in it."""

    id: str
    owner: str
    title: str
    created: str
    changed: str
    shared: bool
    exchanges: int
    snippet: str = ""


@dataclass(frozen=True, slots=True)
class KeptExchange:
    """One question with its answer as `Answer.to_dict()` made it; `verdict` is empty until somebody judged it, `reason` is in their words.

    Both are the owner's alone: where it was read for somebody else, it is not their `own`, and both are empty.
    """

    id: str
    question: str
    answer: Mapping[str, Any]
    asked: str
    verdict: Verdict = ""
    reason: str = ""
    own: bool = True

    @property
    def citations(self) -> Sequence[Mapping[str, Any]]:
        """The answer's citations, by their numbers."""
        cited: Sequence[Mapping[str, Any]] = self.answer.get("citations", ())
        return cited


@dataclass(frozen=True, slots=True)
class CitationNow:
    """How a stored quote compares with its document: `start` and `end` are where it stands now, None where it stands nowhere or in several places."""

    number: int
    state: State
    start: int | None
    end: int | None


class Texts(Protocol):
    """Where documents' texts are; an unknown id, or one that is not the user's to see, is a KeyError."""

    def text(self, document_id: str, /) -> str: ...


class Conversations:
    """All kept conversations. Every method takes the user's id, and somebody else's conversation is a KeyError like one that is not there.

    A shared conversation is read by everybody and changed by its owner alone. Everything raises StoreError where the file cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # Writing

    def begin(self, user: str, title: str = "") -> str:
        """Makes an empty conversation and returns its id. Raises OverLimit where the user has too many."""
        identifier, time = uuid4().hex, _now()
        with self._database.transaction() as connection:
            ((many,),) = connection.execute("SELECT count(*) FROM conversations WHERE owner = ?", (user,))
            if many >= MOST_CONVERSATIONS and user != LOCAL:
                raise OverLimit(f"You have {many:,} conversations, and {MOST_CONVERSATIONS:,} is the most. Delete some of them first.")
            number = connection.execute(
                "INSERT INTO conversations (id, owner, title, created, changed, shared) VALUES (?, ?, ?, ?, ?, 0)",
                (identifier, user, _title(title), time, time),
            ).lastrowid
            connection.execute("INSERT INTO spoken (rowid, title, questions, answers) VALUES (?, ?, '', '')", (number, _title(title)))
        return identifier

    def add(self, conversation: str, user: str, answer: Answer | Mapping[str, Any]) -> str:
        """Appends a question with its answer, and returns the exchange's id. Raises KeyError, OverLimit where the conversation is full."""
        kept = answer.to_dict() if isinstance(answer, Answer) else dict(answer)
        question, identifier, time = str(kept["question"]), uuid4().hex, _now()
        # In ASCII: a lone surrogate, which a document may hold, cannot be stored as UTF-8.
        row = (identifier, json.dumps(question), json.dumps(kept), time)
        with self._database.transaction() as connection:
            number = self._own(conversation, user)
            ((many,),) = connection.execute("SELECT count(*) FROM exchanges WHERE conversation = ?", (number,))
            if many >= MOST_EXCHANGES:
                raise OverLimit(
                    f"This conversation has {many:,} questions, and {MOST_EXCHANGES:,} is the most. Begin a new one; delete this one once you do not need it."
                )
            connection.execute(
                "INSERT INTO exchanges (id, conversation, question, answer, asked, verdict, reason, checksum) VALUES (?, ?, ?, ?, ?, '', '', ?)",
                (identifier, number, *row[1:], checksum(*row)),
            )
            connection.execute(
                "UPDATE conversations SET changed = ?, title = iif(title = '', ?, title) WHERE number = ?", (time, _title(question), number)
            )
            self._spoken(number, question, str(kept.get("text", "")))
        return identifier

    def rename(self, conversation: str, user: str, title: str) -> None:
        """Gives a conversation another title. Raises KeyError, CitewellError for an empty one."""
        wanted = _title(title)
        if not wanted:
            raise CitewellError("A conversation needs a title. Send one of at least one letter.")
        with self._database.transaction() as connection:
            number = self._own(conversation, user)
            connection.execute("UPDATE conversations SET title = ? WHERE number = ?", (wanted, number))
            connection.execute("UPDATE spoken SET title = ? WHERE rowid = ?", (wanted, number))

    def share(self, conversation: str, user: str, shared: bool) -> None:
        """Lets everybody read a conversation, or nobody else again. Its quotes are read with it, of whichever documents they are. Raises KeyError."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE conversations SET shared = ? WHERE number = ?", (int(shared), self._own(conversation, user)))

    def delete(self, conversation: str, user: str) -> None:
        """Makes a conversation gone, with all that was said in it. Raises KeyError."""
        with self._database.transaction() as connection:
            number = self._own(conversation, user)
            connection.execute("DELETE FROM spoken WHERE rowid = ?", (number,))
            connection.execute("DELETE FROM conversations WHERE number = ?", (number,))

    def delete_all(self, user: str) -> int:
        """Makes all conversations of a user gone; returns how many there were."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM spoken WHERE rowid IN (SELECT number FROM conversations WHERE owner = ?)", (user,))
            return connection.execute("DELETE FROM conversations WHERE owner = ?", (user,)).rowcount

    def drop(self, exchange: str, user: str) -> None:
        """Takes one exchange out of its conversation, as when its question is asked again. Raises KeyError."""
        with self._database.transaction() as connection:
            number = self._own_exchange(exchange, user)
            connection.execute("DELETE FROM exchanges WHERE id = ?", (exchange,))
            self._index(number)

    def judge(self, exchange: str, user: str, verdict: Verdict, reason: str = "") -> None:
        """Notes what a user says of an answer, in place of what they said before; an empty verdict takes it back. Raises KeyError, CitewellError."""
        if verdict not in ("", "right", "wrong"):
            raise CitewellError("A verdict is 'right' or 'wrong', or empty to take it back.")
        if len(reason) > REASON_LENGTH:
            raise CitewellError(f"The reason is too long. Tell it in at most {REASON_LENGTH} characters.")
        with self._database.transaction() as connection:
            self._own_exchange(exchange, user)
            said = reason.encode("utf-8", "replace").decode() if verdict else ""
            connection.execute("UPDATE exchanges SET verdict = ?, reason = ? WHERE id = ?", (verdict, said, exchange))

    def _own(self, conversation: str, user: str) -> int:
        """The number of a user's own conversation."""
        rows = self._database.connection.execute("SELECT number FROM conversations WHERE id = ? AND owner = ?", (conversation, user)).fetchall()
        if not rows:
            raise KeyError(conversation)
        return int(rows[0][0])

    def _own_exchange(self, exchange: str, user: str) -> int:
        rows = self._database.connection.execute(
            "SELECT c.number FROM exchanges e JOIN conversations c ON c.number = e.conversation WHERE e.id = ? AND c.owner = ?", (exchange, user)
        ).fetchall()
        if not rows:
            raise KeyError(exchange)
        return int(rows[0][0])

    def _spoken(self, number: int, question: str, text: str) -> None:
        """Adds one exchange to what is searched of a conversation, without a look at those before it: there may be many, or a damaged one."""
        added = self._database.connection.execute(
            "UPDATE spoken SET title = (SELECT title FROM conversations WHERE number = spoken.rowid), questions = questions || ? || char(10), "
            "answers = answers || ? || char(10) WHERE rowid = ?",
            (_plain(question), _plain(text), number),
        ).rowcount
        if not added:
            self._index(number)

    def _index(self, number: int) -> None:
        """What is searched of a conversation, from what is stored of it; a damaged exchange is left out."""
        connection = self._database.connection
        said: list[tuple[str, str]] = []
        for question, answer in connection.execute(
            "SELECT question, answer FROM exchanges WHERE conversation = ? ORDER BY number", (number,)
        ).fetchall():
            with suppress(ValueError, AttributeError):
                said.append((_plain(str(json.loads(question))), _plain(str(json.loads(answer).get("text", "")))))
        connection.execute(
            "INSERT OR REPLACE INTO spoken (rowid, title, questions, answers) SELECT number, title, ?, ? FROM conversations WHERE number = ?",
            ("".join(f"{question}\n" for question, _ in said), "".join(f"{text}\n" for _, text in said), number),
        )

    # Reading

    def listing(self, user: str, limit: int = 50, offset: int = 0) -> list[ConversationInfo]:
        """A user's own conversations and the shared ones, the last changed first."""
        return self._listed("(c.owner = ? OR c.shared) ORDER BY c.changed DESC, c.number DESC LIMIT ? OFFSET ?", user, _limit(limit), max(0, offset))

    def search(self, user: str, words: str, limit: int = 50) -> list[ConversationInfo]:
        """Those of listing() in whose title, questions or answers every one of the words begins a word, the best first; all where there are none."""
        terms = list(dict.fromkeys(_WORDS.findall(words)))[:SEARCHED_WORDS]
        if not terms:
            return self.listing(user, limit)
        # Quoted, so that what somebody types is never taken for FTS5's operators.
        expression = " AND ".join(f'"{term}"*' for term in terms)
        found = self._database.rows(
            "SELECT c.id, snippet(spoken, -1, '', '', '…', 16) FROM spoken JOIN conversations c ON c.number = spoken.rowid "
            "WHERE spoken MATCH ? AND (c.owner = ? OR c.shared) ORDER BY bm25(spoken, 5.0, 2.0, 1.0), c.changed DESC LIMIT ?",
            (expression, user, _limit(limit)),
        )
        snippets = dict(found)
        marks = ",".join("?" * len(snippets))
        listed = {info.id: info for info in self._listed(f"(c.owner = ? OR c.shared) AND c.id IN ({marks})", user, *snippets)}
        return [replace(listed[one], snippet=snippets[one]) for one in snippets if one in listed]

    def _listed(self, where: str, *values: Any) -> list[ConversationInfo]:
        rows = self._database.rows(
            "SELECT c.id, c.owner, c.title, c.created, c.changed, c.shared, (SELECT count(*) FROM exchanges e WHERE e.conversation = c.number) "
            f"FROM conversations c WHERE {where}",
            values,
        )
        return [ConversationInfo(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6]) for row in rows]

    def info(self, conversation: str, user: str) -> ConversationInfo:
        """What a listing says of one conversation. Raises KeyError."""
        for info in self._listed("(c.owner = ? OR c.shared) AND c.id = ?", user, conversation):
            return info
        raise KeyError(conversation)

    def exchanges(self, conversation: str, user: str) -> list[KeptExchange]:
        """All that was asked and answered, in order. Raises KeyError, and StoreDamaged where an answer is not what was stored."""
        self.info(conversation, user)
        return self._exchanges(user, "c.id = ? AND (c.owner = ? OR c.shared) ORDER BY e.number", conversation, user)

    def exchange(self, exchange: str, user: str) -> KeptExchange:
        """One question with its answer. Raises KeyError, StoreDamaged."""
        for found in self._exchanges(user, "e.id = ? AND (c.owner = ? OR c.shared)", exchange, user):
            return found
        raise KeyError(exchange)

    def _exchanges(self, user: str, where: str, *values: Any) -> list[KeptExchange]:
        rows = self._database.rows(
            "SELECT e.id, e.question, e.answer, e.asked, e.checksum, e.verdict, e.reason, c.owner = ? FROM exchanges e "
            f"JOIN conversations c ON c.number = e.conversation WHERE {where}",
            (user, *values),
        )
        for row in rows:
            if checksum(*row[:4]) != row[4]:
                raise StoreDamaged(
                    "A kept answer was damaged on disk, so the conversation cannot be shown. Delete it, or bring it back with `citewell restore`."
                )
        return [
            KeptExchange(row[0], json.loads(row[1]), json.loads(row[2]), row[3], row[5] if row[7] else "", row[6] if row[7] else "", bool(row[7]))
            for row in rows
        ]


def history(exchanges: Sequence[KeptExchange]) -> tuple[Turn, ...]:
    """The turns that a follow-up question may lean on."""
    return tuple(turn for kept in exchanges for turn in (Turn("user", kept.question), Turn("assistant", str(kept.answer.get("text", "")))))


def citations_now(store: Texts, exchange: KeptExchange) -> tuple[CitationNow, ...]:
    """How each stored quote compares with its document as it is now, by number. The quote itself stays what it was."""
    texts: dict[str, str | None] = {}
    found = []
    for citation in exchange.citations:
        document_id, quote, start, end = (citation[name] for name in ("document_id", "quote", "start", "end"))
        if document_id not in texts:
            try:
                texts[document_id] = store.text(document_id)
            except (KeyError, StoreDamaged):
                texts[document_id] = None
        text = texts[document_id]
        if text is None:
            found.append(CitationNow(citation["number"], missing(exchange.own), None, None))
        elif text[start:end] == quote:
            found.append(CitationNow(citation["number"], "unchanged", start, end))
        else:
            # Words that only moved can still be opened, where there is but one such place.
            moved = text.find(quote) if quote and text.count(quote) == 1 else -1
            found.append(CitationNow(citation["number"], "changed", *((moved, moved + len(quote)) if moved >= 0 else (None, None))))
    return tuple(found)


def missing(own: bool) -> State:
    """What is told of a document that is not there for whoever reads: in their own conversation, or in somebody else's."""
    return "gone" if own else "unavailable"


def told(exchange: KeptExchange, store: Texts | None = None) -> dict[str, Any]:
    """An exchange as JSON has it at every door; with `store`, how each quote compares with its document now (`citations_now`)."""
    entry = {key: value for key, value in asdict(exchange).items() if key != "own"}
    return entry if store is None else {**entry, "citations_now": [asdict(now) for now in citations_now(store, exchange)]}


# Export

UNAVAILABLE = "not yours to open, or no longer there"
STATES = {
    "unchanged": "",
    "changed": " (the document has changed since)",
    "gone": " (the document is no longer there)",
    "unavailable": f" ({UNAVAILABLE})",
}

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-!|~&$^=.:\"'@])")
_ADDRESS = re.compile(r"://|www\.|@|mailto:|xmpp:", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def export_markdown(info: ConversationInfo, exchanges: Sequence[KeptExchange], store: Texts | None = None) -> str:
    """A conversation as Markdown with footnotes: each [n] of an answer is one, with title, source, page and quote. Footnotes are numbered through.

    Nothing of what was asked, answered or quoted is taken for HTML, a link or a picture. With `store`, footnotes tell what has changed since.
    """
    lines = [f"# {escaped(info.title) or 'Conversation'}", "", f"*{escaped(info.created)}*", ""]
    notes: list[str] = []
    for exchange in exchanges:
        states = {now.number: now.state for now in citations_now(store, exchange)} if store is not None else {}
        numbers: dict[int, int] = {}
        for citation in exchange.citations:
            numbers[citation["number"]] = len(notes) + 1
            notes.append(_footnote(len(notes) + 1, citation, states.get(citation["number"], "unchanged")))
        # Behind each other: two blocks of text in a row would be one paragraph.
        lines += [f"## {escaped(exchange.question)}", "", *_answered(exchange, numbers), ""]
        for notice in exchange.answer.get("notices", ()):
            lines += [f"*{escaped(str(notice))}*", ""]
        if exchange.verdict:
            lines += [f"*Marked as {exchange.verdict}{': ' + escaped(exchange.reason) if exchange.reason else ''}*", ""]
    return "\n".join([*lines, *notes]).rstrip("\n") + "\n"


def _answered(exchange: KeptExchange, numbers: Mapping[int, int]) -> list[str]:
    """An answer's lines, each mark a footnote's, and what nothing bears out marked as such."""
    text = str(exchange.answer.get("text", ""))
    for sentence in exchange.answer.get("unsupported", ()):
        text = text.replace(sentence, f"{sentence} (not supported by the documents)", 1)

    def footnotes(marked: re.Match[str]) -> str | None:
        cited = [int(number) for number in re.findall(r"\d+", marked.group(1))]
        return "".join(f"[^{numbers[number]}]" for number in cited) if all(number in numbers for number in cited) else None

    lines = []
    for line in text.splitlines():
        made, done = "", 0
        for marked in MARK.finditer(line):
            notes = footnotes(marked)
            if notes is not None:
                made += escaped(line[done : marked.start()], ends=False) + notes
                done = marked.end()
        lines.append((made + escaped(line[done:], ends=False)).strip())
    # A backslash at the end keeps lines apart that stand on lines of their own.
    return [f"{line}\\" if line and following else line for line, following in zip(lines, [*lines[1:], ""], strict=True)]


def _footnote(number: int, citation: Mapping[str, Any], state: State) -> str:
    page = f", page {citation['page']}" if citation["page"] else ""
    where = f"{escaped(citation['source'])}{page}, characters {citation['start']}–{citation['end']}"
    return f"[^{number}]: **{escaped(citation['title'])}**, {where}{STATES[state]}: “{escaped(citation['quote'])}”"


def escaped(text: str, ends: bool = True) -> str:
    """Text as Markdown that shows it and nothing else, on one line; white space is made one space, at the ends taken off where `ends`.

    What looks like an address stands as code: some renderers make links of it whatever is put before its characters.
    """
    words = re.split(r"\s+", _CONTROL.sub(" ", text))
    made = " ".join(_code(word) if _ADDRESS.search(word) else _SPECIAL.sub(r"\\\1", word) for word in words)
    return made.strip() if ends else made


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if text.startswith("`") or text.endswith("`") else f"{fence}{text}{fence}"


def export_json(info: ConversationInfo, exchanges: Sequence[KeptExchange], store: Texts | None = None) -> str:
    """A conversation as JSON: what is kept of it, and with `store` how each quote compares with its document now (`citations_now`)."""
    kept = {key: value for key, value in asdict(info).items() if key not in ("snippet", "exchanges", "owner")}
    return json.dumps({"format": 1, **kept, "exchanges": [told(exchange, store) for exchange in exchanges]}, ensure_ascii=True, indent=2) + "\n"


FORMATS: dict[str, tuple[str, Callable[..., str]]] = {"md": ("text/markdown", export_markdown), "json": ("application/json", export_json)}
"""By file ending, what a conversation can be exported as: its media type and the function that makes it."""


def _title(text: str) -> str:
    return " ".join(_plain(text).split())[:TITLE_LENGTH]


def _plain(text: str) -> str:
    """Text that SQLite can keep as UTF-8."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def _now() -> str:
    """To the millisecond: what was changed last stands first."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _limit(limit: int) -> int:
    return max(1, min(limit, AT_ONCE))
