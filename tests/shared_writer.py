"""Processes that write to one shared store and ask it at once, one of which is killed again and again. For test_postgres.py.

What is done is noted in a log before and after, by all in one file. A question's answer must be a state that was done when it was asked or begun since.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import servers
from store_writer import PARTS, ROOT, check, identifier, parts, put, states, vector

from index import shared_vectors
from index.chroma_server import ChromaAddress
from index.contract import DocumentStore, UploadKeeper
from index.postgres import PostgresStore
from index.schema import UPLOADS, Entry

DOCUMENTS, CONTENDED = 8, 999
"""So many of each writer, and one that all of them replace."""

CHANGES, QUESTIONS, TURNS = 11, 11, 3
"""So much at least does a writer do that is not killed, however slow the machine is."""

_unasked: list[str] = []
"""Questions for which Chroma could not be asked."""


def opened(folder: Path, url: str, chroma: str) -> DocumentStore:
    return PostgresStore(folder, url, ChromaAddress(chroma), "writer@1")


def noticed(asked: Callable[..., list[int] | None]) -> Callable[..., list[int] | None]:
    """SharedVectors._asked(), noting where Chroma could not be asked."""

    def noting(self: shared_vectors.SharedVectors, name: str, *given: object) -> list[int] | None:
        found = asked(self, name, *given)
        if found is None:
            _unasked.append(name)
        return found

    return noting


def ready(store: DocumentStore) -> None:
    """Waits until Chroma can be asked: on a busy machine it may seem away for a moment."""
    end = time.monotonic() + 180
    while store.wait_for_index(1) != "ready":
        assert time.monotonic() < end, store.notices()
        time.sleep(0.05)


def settled(store: DocumentStore) -> None:
    """Waits until whatever was under way has ended: a commit that a killed process had sent is still made."""
    rows = store._database.rows  # type: ignore[attr-defined]
    ((begun,),) = rows("SELECT clock_timestamp()")
    while rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'citewell' AND pid <> pg_backend_pid() AND xact_start < %s", (begun,)):
        time.sleep(0.01)


def ask(store: DocumentStore, number: int, log_file: Path) -> None:
    """Asks for a document by words and by meaning; asserts that neither answer is behind what was done before, nor ahead of what was begun."""
    before = log_file.read_text()
    known = states(before).get(number, {0})
    found = store.passages([one for one, _ in store.matching(f"doc{number}", 50)]).values()
    by_words = {int(passage.text.split("v", 1)[1].split()[0]) for passage in found}
    versions = {version for version in known if version}
    _unasked.clear()
    near = {
        version: sum(similarity > 0.999 for part in range(PARTS) for _, similarity in store.nearest(vector(number, version, part), 1))
        for version in versions | {version for version in past(before, number)[-2:] if version}
    }
    if store.notices() or _unasked:
        # Chroma could not be asked. Words must be right all the same.
        near = {}
        with log_file.open("a") as log:
            log.write("away\n")
    began = set(past(log_file.read_text()[len(before) :], number))
    assert by_words <= known | began, f"stale: words find {by_words} of document {number}, of which there is {known}, and {began} was begun since"
    if len(known) == 1 and not began:
        (version,) = known
        assert by_words == ({version} if version else set()), f"stale: words find {by_words} of document {number}, and it is {version}"
        assert len(found) == (PARTS if version else 0), f"half of document {number}"
        for one, count in near.items():
            assert count == (PARTS if one == version else 0), (
                f"stale: meaning finds {count} passages of version {one} of {number}, and it is {version}"
            )


def contend(store: DocumentStore, version: int) -> bool:
    """Replaces the document that is everybody's, as an upload: whoever was quicker wins, and the other's is late. Returns whether it was taken."""
    assert isinstance(store, UploadKeeper)
    document, passages, keys, rows = parts(CONTENDED, version)
    before = store.known(UPLOADS).get(document.source)
    store.keep_upload(UPLOADS, document.source, document.fingerprint.encode(), document.fingerprint)
    entry = Entry(document, UPLOADS, passages, keys, replaces=before.fingerprint if before else "")
    if store.put_many([entry], dict(zip(keys, rows, strict=True))):
        return False
    # A server that cannot read it changes nothing of what is there.
    store.reject(UPLOADS, document.source, "it is larger than 0 MB", document.fingerprint)
    return True


def contended(store: DocumentStore, before: int) -> int:
    """Asks for the document that is everybody's; asserts that once it was there (`before`) it is always there, and whole."""
    for _ in range(20):
        ids = [one for one, _ in store.matching(f"doc{CONTENDED}", 50)]
        versions = [int(passage.text.split("v", 1)[1].split()[0]) for passage in store.passages(ids).values()]
        if len(versions) == PARTS:
            break  # otherwise it was replaced between the two, and search() would ask again
        assert len(ids) == PARTS or not before, f"half of the document that is everybody's: {len(ids)}"
    assert len(set(versions)) <= 1, f"two versions at once: {versions}"
    assert not before or len(versions) == PARTS, "the document that is everybody's is not found"
    return versions[0] if versions else 0


def past(log: str, number: int) -> list[int]:
    """All versions of a document that a log has begun, in order."""
    return [
        int(pair.split(":")[1])
        for line in log.splitlines()
        if line.startswith("begin ")
        for pair in line.split()[1:]
        if pair.startswith(f"{number}:")
    ]


def work(store: DocumentStore, writer: int, log_file: Path, chance: random.Random, seconds: float) -> tuple[int, int, int]:
    """Changes this writer's documents and asks for everybody's; returns how many changes and questions, and how often it replaced everybody's."""
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND)

    def note(line: str) -> None:
        os.write(log, f"{line}\n".encode())

    changes = questions = taken = seen = 0
    latest = max((version for number in range(writer * 100, writer * 100 + DOCUMENTS) for version in past(log_file.read_text(), number)), default=0)
    settled(store)
    for number, allowed in states(log_file.read_text()).items():
        if number // 100 == writer and len(allowed) > 1:  # the writer before this one was killed
            try:
                version = int(store.document_file(identifier(number))[2].partition(".")[2])
            except KeyError:
                version = 0
            assert version in allowed, f"document {number} is {version} and should be one of {allowed}"
            note(f"is {number}:{version}")
    end, parent = time.monotonic() + seconds, os.getppid()
    while time.monotonic() < end or changes < CHANGES or questions < QUESTIONS or taken < TURNS:
        assert os.getppid() == parent, "nobody waits for it any more"
        number, latest = writer * 100 + chance.randrange(DOCUMENTS), latest + 1
        step = chance.choice(["put", "many", "remove", "ask", "ask", "ask", "ask", "turn"])
        if step == "ask":
            ask(store, chance.randrange(3) * 100 + chance.randrange(DOCUMENTS), log_file)
            questions += 1
            continue
        if step == "turn":
            taken += contend(store, time.time_ns())
            seen = contended(store, seen)
            continue
        version = 0 if step == "remove" else latest
        several = sorted({number, writer * 100 + chance.randrange(DOCUMENTS)}) if step == "many" else [number]
        pairs = " ".join(f"{one}:{version}" for one in several)
        note(f"begin {pairs}")
        if step == "remove":
            store.remove_many([identifier(number)])
        elif step == "put":
            put(store, number, version)
        else:
            made = [parts(one, version) for one in several]
            entries = [Entry(document, ROOT, passages, keys) for document, passages, keys, _ in made]
            store.put_many(entries, {key: row for _, _, keys, rows in made for key, row in zip(keys, rows, strict=True)})
        note(f"done {pairs}")
        changes += 1
        if chance.random() < 0.05:
            store.finish_sync(ROOT)
    return changes, questions, taken


def forked(writer: int, seed: int, log_file: Path, url: str, chroma: str, seconds: float) -> int:
    child = os.fork()
    if child:
        return child
    try:
        logging.basicConfig(
            filename=log_file.with_suffix(".warnings"), level=logging.WARNING, format="%(asctime)s %(process)d %(message)s", force=True
        )
        store = opened(log_file.parent / f"data-{writer}", url, chroma)
        ready(store)
        done = work(store, writer, log_file, random.Random(seed), seconds)
        with log_file.open("a") as log:
            log.write("worked {} {} {}\n".format(*done))
        store.close()
        os._exit(0)
    except BaseException:
        with log_file.open("a") as log:
            log.write(f"wrong {traceback.format_exc()}\n")
    finally:
        os._exit(1)
    return 0


def main(url: str, chroma: str, log_file: Path, seconds: float, kills: int) -> None:
    """Two writers go on all the while, a third is killed and begun again; then everything must be there and whole."""
    import chromadb  # noqa: F401 - once, not once a fork
    import psycopg  # noqa: F401

    # So that Chroma is asked, and not all compared.
    shared_vectors.SharedVectors._asked = noticed(shared_vectors.SharedVectors._asked)  # type: ignore[method-assign]
    servers.unhurried(pytest.MonkeyPatch())
    shared_vectors.COMPARED = shared_vectors.COMPARED_OF_CHOSEN = 0
    log_file.touch()
    running = {forked(writer, writer, log_file, url, chroma, seconds) for writer in (0, 1)}
    try:
        _kill_and_wait(running, url, chroma, log_file, kills)
        report = _checked(url, chroma, log_file)
    except BaseException:
        warnings = log_file.with_suffix(".warnings")
        sys.stderr.write(warnings.read_text()[-3_000:] if warnings.exists() else "")
        raise
    finally:
        for child in running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    sys.stdout.write(json.dumps(report) + "\n")


def _kill_and_wait(running: set[int], url: str, chroma: str, log_file: Path, kills: int) -> None:
    """Kills a third writer again and again, and waits for the `running` ones."""
    chance = random.Random(7)

    def well() -> str:
        log = log_file.read_text()
        assert "wrong" not in log, log[log.index("wrong") :][:3_000]
        return log

    for kill in range(kills):
        size = log_file.stat().st_size
        child = forked(2, 100 + kill, log_file, url, chroma, 600)
        running.add(child)
        while b"done 20" not in log_file.read_bytes()[size:]:
            well()
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.3))
        running.discard(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for child in list(running):
        running.discard(child)
        _, ended = os.waitpid(child, 0)
        assert ended == 0, well()[-3_000:]
    well()


def _checked(url: str, chroma: str, log_file: Path) -> dict[str, int]:
    """What was done and what is there, all of which was looked for by words and by vectors."""
    log = log_file.read_text()
    store = opened(log_file.parent / "data", url, chroma)
    try:
        ready(store)
        assert contended(store, 1), "the document that is everybody's"
        name = parts(CONTENDED, 1)[0].source
        store.drop_upload(UPLOADS, name)  # type: ignore[attr-defined]
        store.remove_many([identifier(CONTENDED)])
        found = check(store, log)
        changes, questions, taken = (sum(int(line.split()[place]) for line in log.splitlines() if line.startswith("worked")) for place in (1, 2, 3))
        rows = store._database.rows  # type: ignore[attr-defined]
        deadline = time.monotonic() + 180
        while (left := rows("SELECT count(*) FROM pending")[0][0]) and time.monotonic() < deadline:
            time.sleep(0.05)
        collection = store._vectors._collection(store._vectors._now().collection)  # type: ignore[attr-defined]
        numbers = [row[0] for row in rows("SELECT number FROM passages")]
        held = collection.held(numbers)
        return {
            "changes": changes, "questions": questions, "replaced by turns": taken, "without Chroma": log.count("\naway\n"), "documents": sum(map(bool, found.values())), "pending": left,
            "passages": store.passage_count(), "lacking": len(numbers) - len(held), "ghosts": collection.count() - len(held),
        }  # fmt: skip
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
