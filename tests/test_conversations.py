"""Tests of rag.conversations and index.people: what was said is kept, found, judged and exported as it was, for its owner alone."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from index.database import Database
from index.errors import CitewellError, OverLimit, StoreDamaged, StoreTooNew
from index.people import PEOPLE, open_people
from rag import conversations as conversations_module
from rag.accounts import LOCAL
from rag.assistant import Assistant
from rag.conversations import CitationNow, Conversations, KeptExchange, citations_now, escaped, export_json, export_markdown, history
from rag.types import Answer, Turn

QUESTION = "Who built the lander Apollo?"


@pytest.fixture
def kept(database: Database) -> Conversations:
    return Conversations(database)


def said(question: str, text: str = "Nothing was found.", **more: object) -> dict[str, object]:
    return {"question": question, "text": text, "citations": [], **more}


def cited(number: int, quote: str, **more: object) -> dict[str, object]:
    return {
        **{"number": number, "document_id": "d", "title": "T", "source": "t.md", "page": None, "start": 0, "end": len(quote), "quote": quote},
        **more,
    }


def test_an_answer_survives_a_reload_whole(tmp_path: Path, assistant: Assistant) -> None:
    answer = assistant.ask(QUESTION)
    assert answer.citations
    with closing(open_people(tmp_path)) as first:
        conversation = Conversations(first).begin("ann")
        Conversations(first).add(conversation, "ann", answer)
    with closing(open_people(tmp_path)) as again:
        (exchange,) = Conversations(again).exchanges(conversation, "ann")
        assert exchange.answer == json.loads(json.dumps(answer.to_dict()))
        assert exchange.question == QUESTION
        (info,) = Conversations(again).listing("ann")
    assert (info.title, info.exchanges, info.owner) == (QUESTION, 1, "ann")
    assert history([exchange]) == (Turn("user", QUESTION), Turn("assistant", answer.text))
    assert set(exchange.answer) == set(Answer.__slots__)


def test_a_quote_stays_and_is_marked_when_its_document_changes(kept: Conversations, assistant: Assistant, folder: Path) -> None:
    conversation = kept.begin("ann")
    kept.add(conversation, "ann", assistant.ask(QUESTION))
    (exchange,) = kept.exchanges(conversation, "ann")
    (citation, *_) = exchange.citations
    start, end = citation["start"], citation["end"]
    assert citations_now(assistant.store, exchange)[0] == CitationNow(1, "unchanged", start, end)
    file = folder / citation["source"]
    whole = file.read_text()
    file.write_text("A line above.\n\n" + whole)
    assistant.sync(folder)
    assert citations_now(assistant.store, exchange)[0] == CitationNow(1, "changed", start + 15, end + 15)
    file.write_text(whole.replace("Grumman", "Boeing"))
    assistant.sync(folder)
    assert citations_now(assistant.store, exchange)[0] == CitationNow(1, "changed", None, None)
    assert "(the document has changed since)" in export_markdown(kept.info(conversation, "ann"), [exchange], assistant.store)
    file.unlink()
    assistant.sync(folder)
    assert citations_now(assistant.store, exchange)[0] == CitationNow(1, "gone", None, None)
    assert kept.exchanges(conversation, "ann") == [exchange]
    assert "Grumman" in citation["quote"]


def test_words_that_stand_twice_are_not_guessed_at() -> None:
    class Twice:
        def text(self, document_id: str, /) -> str:
            return "said it. said it."

    exchange = KeptExchange("e", "q", said("q", citations=[cited(1, "said it.", start=1, end=9)]), "")
    assert citations_now(Twice(), exchange) == (CitationNow(1, "changed", None, None),)


def test_conversations_are_found_by_title_question_and_answer(kept: Conversations) -> None:
    apollo, tea = kept.begin("ann", "Landings"), kept.begin("ann")
    kept.add(apollo, "ann", said("Who built Apollo?", "Grumman built it."))
    kept.add(tea, "ann", said("How is tea brewed?", "At 80 degrees."))

    def found(words: str) -> list[str]:
        return [info.id for info in kept.search("ann", words)]

    assert found("landing") == found("grumman") == found("apollo built") == found("Grum") == [apollo]
    assert found("brewing") == [tea]
    assert found("apollo tea") == []
    assert found("") == found(" -*() ") == found("_") == found("__ _") == [tea, apollo]
    assert found("_tea_brewed") == [tea]
    for operator in ('"', "tea OR apollo", "title:tea", "tea*", "NEAR(tea, 80)", "tea AND", "(", "^tea"):
        assert isinstance(found(operator), list)
    assert "80 degrees" in kept.search("ann", "degrees")[0].snippet
    kept.rename(apollo, "ann", "  About the   Moon ")
    assert found("moon") == [apollo]
    assert found("landings") == []
    assert kept.info(apollo, "ann").title == "About the Moon"
    kept.delete(apollo, "ann")
    assert found("moon") == found("grumman") == []
    assert [info.id for info in kept.listing("ann")] == [tea]
    with pytest.raises(KeyError):
        kept.exchanges(apollo, "ann")


def test_what_is_deleted_is_gone_from_every_table(kept: Conversations, database: Database) -> None:
    one, two = kept.begin("ann"), kept.begin("ben")
    kept.add(one, "ann", said("secret"))
    kept.add(two, "ben", said("other"))
    assert kept.delete_all("ann") == 1
    for table in ("conversations", "exchanges", "spoken"):
        assert database.rows(f"SELECT count(*) FROM {table}") == [(1,)]
    assert [info.id for info in kept.search("ben", "other")] == [two]


def test_no_conversation_is_read_or_changed_by_another(kept: Conversations) -> None:
    of = {user: [kept.begin(user) for _ in range(3)] for user in ("ann", "ben")}
    exchanges = {user: [kept.add(one, user, said(f"the zebra of {user}")) for one in mine] for user, mine in of.items()}
    for user, other in (("ann", "ben"), ("ben", "ann")):
        assert {info.id for info in kept.listing(user)} == {info.id for info in kept.search(user, "zebra")} == set(of[user])
        for conversation, exchange in zip(of[other], exchanges[other], strict=True):
            for attempt, values in (
                (kept.info, (conversation, user)),
                (kept.exchanges, (conversation, user)),
                (kept.exchange, (exchange, user)),
                (kept.add, (conversation, user, said("mine now"))),
                (kept.rename, (conversation, user, "mine now")),
                (kept.share, (conversation, user, True)),
                (kept.judge, (exchange, user, "wrong")),
                (kept.drop, (exchange, user)),
                (kept.delete, (conversation, user)),
            ):
                with pytest.raises(KeyError):
                    attempt(*values)  # type: ignore[operator]
    for user, mine in of.items():
        assert [kept.exchanges(one, user)[0].question for one in mine] == [f"the zebra of {user}"] * 3


def test_a_shared_conversation_is_read_by_all_and_changed_by_its_owner(kept: Conversations) -> None:
    conversation = kept.begin("ann")
    exchange = kept.add(conversation, "ann", said("about zebras"))
    kept.share(conversation, "ann", True)
    assert [info.id for info in kept.listing("ben")] == [info.id for info in kept.search("ben", "zebras")] == [conversation]
    assert kept.exchange(exchange, "ben").question == "about zebras"
    with pytest.raises(KeyError):
        kept.rename(conversation, "ben", "mine")
    with pytest.raises(KeyError):
        kept.delete(conversation, "ben")
    kept.share(conversation, "ann", False)
    assert kept.listing("ben") == []


def test_whoever_reads_a_shared_conversation_is_not_told_whether_a_document_is_there(kept: Conversations) -> None:
    class Nothing:
        def text(self, document_id: str, /) -> str:
            raise KeyError(document_id)

    conversation = kept.begin("ann")
    kept.add(conversation, "ann", said("Who?", "Ines did [1].", citations=[cited(1, "Ines did")]))
    kept.share(conversation, "ann", True)
    info = kept.info(conversation, "ann")
    for user, state, words in (
        ("ann", "gone", "(the document is no longer there)"),
        ("ben", "unavailable", "(not yours to open, or no longer there)"),
    ):
        exchanges = kept.exchanges(conversation, user)
        assert citations_now(Nothing(), exchanges[0]) == (CitationNow(1, state, None, None),)  # type: ignore[arg-type]
        assert export_markdown(info, exchanges, Nothing()).count(words) == 1
        assert json.loads(export_json(info, exchanges, Nothing()))["exchanges"][0]["citations_now"][0]["state"] == state


def test_what_an_owner_says_of_an_answer_is_theirs_alone(kept: Conversations) -> None:
    conversation = kept.begin("ann")
    exchange = kept.add(conversation, "ann", said("Who?"))
    kept.judge(exchange, "ann", "wrong", "Ben got this wrong again.")
    kept.share(conversation, "ann", True)
    info = kept.info(conversation, "ben")
    for read in (kept.exchange(exchange, "ben"), *kept.exchanges(conversation, "ben")):
        assert (read.verdict, read.reason, read.own) == ("", "", False)
        assert "Marked as" not in export_markdown(info, [read])
        assert not re.search(r"wrong|\bown\b", export_json(info, [read]))
    assert (
        kept.exchanges(conversation, "ann")[0].reason == json.loads(export_json(info, kept.exchanges(conversation, "ann")))["exchanges"][0]["reason"]
    )
    assert kept.exchange(exchange, "ann").verdict == "wrong"


def test_a_verdict_is_kept_with_its_reason_and_taken_back(kept: Conversations) -> None:
    conversation = kept.begin("ann")
    exchange = kept.add(conversation, "ann", said("q"))
    kept.judge(exchange, "ann", "wrong", "It was 1969.")
    assert (kept.exchange(exchange, "ann").verdict, kept.exchange(exchange, "ann").reason) == ("wrong", "It was 1969.")
    assert "*Marked as wrong: It was 1969\\.*" in export_markdown(kept.info(conversation, "ann"), kept.exchanges(conversation, "ann"))
    kept.judge(exchange, "ann", "", "ignored")
    assert (kept.exchange(exchange, "ann").verdict, kept.exchange(exchange, "ann").reason) == ("", "")
    with pytest.raises(CitewellError, match="'right' or 'wrong'"):
        kept.judge(exchange, "ann", "bad")  # type: ignore[arg-type]
    with pytest.raises(CitewellError, match="at most 2000 characters"):
        kept.judge(exchange, "ann", "wrong", "x" * 2_001)
    with pytest.raises(CitewellError, match="needs a title"):
        kept.rename(conversation, "ann", " \n ")


def test_an_exchange_that_is_asked_again_goes(kept: Conversations) -> None:
    conversation = kept.begin("ann")
    exchange = kept.add(conversation, "ann", said("zebra"))
    kept.add(conversation, "ann", said("giraffe"))
    kept.drop(exchange, "ann")
    assert [one.question for one in kept.exchanges(conversation, "ann")] == ["giraffe"]
    assert not any("zebra" in info.snippet for info in kept.search("ann", "zebra")[:0])
    assert kept.search("ann", "giraffe")


def test_a_user_keeps_so_much_and_no_more(kept: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations_module, "MOST_CONVERSATIONS", 2)
    monkeypatch.setattr(conversations_module, "MOST_EXCHANGES", 3)
    first, _ = kept.begin("ann"), kept.begin("ann")
    with pytest.raises(OverLimit, match=r"2 conversations.*Delete some") as told:
        kept.begin("ann")
    assert told.value.retry_after is None, "waiting does not help"
    assert kept.begin("ben"), "another's do not count"
    for _ in range(4):
        kept.begin(LOCAL)
    kept.delete(first, "ann")
    full = kept.begin("ann")
    for _ in range(3):
        last = kept.add(full, "ann", said("q"))
    with pytest.raises(OverLimit, match=r"3 questions.*Begin a new one"):
        kept.add(full, "ann", said("q"))
    assert kept.info(full, "ann").exchanges == 3
    kept.drop(last, "ann")
    kept.add(full, "ann", said("q"))


def test_adding_looks_at_no_earlier_exchange(kept: Conversations, database: Database) -> None:
    conversation = kept.begin("ann")
    kept.add(conversation, "ann", said("zebra", "Striped."))
    second = kept.add(conversation, "ann", said("giraffe", "Tall."))
    looked: list[str] = []
    database.connection.set_trace_callback(looked.append)
    kept.add(conversation, "ann", said("okapi", "Shy."))
    database.connection.set_trace_callback(None)
    assert looked
    assert not [statement for statement in looked if re.search(r"SELECT[^()]*\b(question|answer)\b[^()]*FROM exchanges", statement)]
    kept.drop(second, "ann")
    for words, found in (("zebra striped okapi shy", 1), ("giraffe", 0), ("tall", 0)):
        assert len(kept.search("ann", words)) == found


def test_a_damaged_exchange_keeps_nothing_from_being_added_or_dropped(kept: Conversations, database: Database) -> None:
    conversation = kept.begin("ann")
    for damage in ("no json at all", "[]", "7"):
        broken = kept.add(conversation, "ann", said("zebra"))
        with database.transaction() as connection:
            connection.execute("UPDATE exchanges SET answer = ? WHERE id = ?", (damage, broken))
    kept.drop(kept.add(conversation, "ann", said("giraffe")), "ann")
    kept.add(conversation, "ann", said("okapi"))
    assert [len(kept.search("ann", words)) for words in ("okapi", "giraffe")] == [1, 0]


def test_a_conversation_that_lost_its_place_in_the_search_gets_it_back(kept: Conversations, database: Database) -> None:
    conversation = kept.begin("ann")
    kept.add(conversation, "ann", said("zebra"))
    with database.transaction() as connection:
        connection.execute("DELETE FROM spoken")
    kept.add(conversation, "ann", said("okapi"))
    assert [info.id for info in kept.search("ann", "zebra okapi")] == [conversation]


def test_any_text_can_be_kept(kept: Conversations) -> None:
    conversation = kept.begin("ann", "tit\udcffle\0")
    text = "lone \ud800 surrogate, nul \0, \u2028 and 🦓"
    kept.add(conversation, "ann", said(text, text))
    (exchange,) = kept.exchanges(conversation, "ann")
    assert (exchange.question, exchange.answer["text"]) == (text, text)
    assert kept.search("ann", "surrogate")
    export_markdown(kept.info(conversation, "ann"), [exchange]).encode()
    assert json.loads(export_json(kept.info(conversation, "ann"), [exchange]))["exchanges"][0]["question"] == text


# Export

EVIL = "<script>alert(1)</script> [a](javascript:x) ![i](http://e.vil/p.png) <http://e.vil> https://e.vil www.e.vil me@e.vil `code` *b* _u_ &lt; [^1]: x | $x$ ~~s~~"


def readable(markdown: str) -> str:
    """What a reader sees of escaped text."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", re.sub(r"`+([^`]+)`+", lambda code: code.group(1), re.sub(r"\\`", "\x00", markdown))).replace(
        "\x00", "`"
    )


def test_escaped_text_reads_as_it_was_and_holds_nothing_else() -> None:
    for line in (EVIL, "# head", "- item", "+ item", "1. one", "1) one", "> quote", "---", "===", "    code", "a\\", "\\<b>", "| a | b |", "a  \nb"):
        made = escaped(line)
        assert "\n" not in made
        assert readable(made) == " ".join(line.split())
        outside = re.sub(r"\\.", "", re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", made))
        assert not re.search(r"[\\`*_{}\[\]()<>#+\-!|~&$^=]|://|www\.|@", outside), made


def test_addresses_stand_as_code_whatever_they_hold() -> None:
    assert escaped("see https://e.vil/`x`` now") == "see ``` https://e.vil/`x`` ``` now" or "```" in escaped("see https://e.vil/`x`` now")
    assert escaped("`me@e.vil`") == "`` `me@e.vil` ``"


def test_markdown_has_a_footnote_for_each_citation(kept: Conversations) -> None:
    conversation = kept.begin("ann", "About <Apollo>")
    kept.add(
        conversation,
        "ann",
        said("Who?", "Grumman did [1, 2]. Cheese too.", citations=[cited(1, "Grumman\n did"), cited(2, "did", page=3)], unsupported=["Cheese too."]),
    )
    kept.add(
        conversation,
        "ann",
        said(EVIL, f"First [1].\nSecond [2] and [9].\n\n{EVIL} [2]", citations=[cited(1, EVIL, title=EVIL, source=EVIL), cited(2, "x")]),
    )
    made = export_markdown(kept.info(conversation, "ann"), kept.exchanges(conversation, "ann"))
    assert made.startswith("# About \\<Apollo\\>\n")
    assert "Grumman did[^1][^2]\\. Cheese too\\. \\(not supported by the documents\\)" in made
    assert "First[^3]\\.\\\nSecond[^4] and \\[9\\]\\." in made
    notes = [line for line in made.split("\n") if re.match(r"\[\^\d+\]:", line)]
    assert [note.partition(":")[0] for note in notes] == ["[^1]", "[^2]", "[^3]", "[^4]"]
    assert notes[1] == "[^2]: **T**, t\\.md, page 3, characters 0–3: “did”"
    assert "“Grumman did”" in notes[0]
    kinds = {token.type for block in MarkdownIt("commonmark").enable("table").parse(made) for token in [block, *(block.children or ())]}
    plain = {"heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text", "text_special", "softbreak", "hardbreak"}
    assert kinds <= plain | {"code_inline", "em_open", "em_close", "strong_open", "strong_close"}, "neither HTML nor links, pictures, lists or tables"


def test_json_holds_all_and_says_what_changed(kept: Conversations, assistant: Assistant) -> None:
    conversation = kept.begin("ann")
    kept.add(conversation, "ann", assistant.ask(QUESTION))
    exchanges = kept.exchanges(conversation, "ann")
    made = json.loads(export_json(kept.info(conversation, "ann"), exchanges, assistant.store))
    assert made["exchanges"][0]["answer"] == exchanges[0].answer
    assert made["exchanges"][0]["citations_now"][0]["state"] == "unchanged"
    assert made["title"] == QUESTION
    assert "owner" not in made


# The file


def test_the_file_is_its_owners_alone_and_lasts(database: Database, tmp_path: Path) -> None:
    Conversations(database).begin("ann")
    for name in (PEOPLE, f"{PEOPLE}-wal"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert database.rows("PRAGMA synchronous") == [(2,)]
    assert not (tmp_path / "changes").exists(), "the store's own notes are not for this file"


def test_two_processes_may_have_it_open(database: Database, tmp_path: Path) -> None:
    with closing(open_people(tmp_path)) as other:
        conversation = Conversations(other).begin("ann")
        assert [info.id for info in Conversations(database).listing("ann")] == [conversation]


def test_many_threads_lose_nothing(kept: Conversations) -> None:
    conversation = kept.begin("ann")
    threads = [threading.Thread(target=lambda: [kept.add(conversation, "ann", said("q")) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.info(conversation, "ann").exchanges == 40


def test_a_damaged_answer_is_never_shown_as_true(kept: Conversations, database: Database) -> None:
    conversation = kept.begin("ann")
    kept.add(conversation, "ann", said("q", "It was 1969."))
    with database.transaction() as connection:
        connection.execute("UPDATE exchanges SET answer = replace(answer, '1969', '1968')")
    with pytest.raises(StoreDamaged, match="cannot be shown"):
        kept.exchanges(conversation, "ann")


def test_a_damaged_or_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_people(tmp_path).close()
    path = tmp_path / PEOPLE
    whole = path.read_bytes()
    for content in (b"no database at all" * 100, whole[:4096] + b"\xff" * 4096 + whole[8192:]):
        path.write_bytes(content)
        with pytest.raises(StoreDamaged, match=r"move it away"):
            open_people(tmp_path)
        assert path.read_bytes() == content
        for more in ("-wal", "-shm"):
            (tmp_path / f"{PEOPLE}{more}").unlink(missing_ok=True)
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreTooNew, match="newer Citewell"):
        open_people(tmp_path)
