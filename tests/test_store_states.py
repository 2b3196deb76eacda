"""The store against a dictionary, through whatever order of writing, searching, closing and being killed Hypothesis thinks of."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from probe_server import ask, serving
from store_writer import PARTS, ROOT, identifier, in_memory, indexed, parts, put, vector, visible

from index import vectors
from index.store import Entry, Store

NUMBERS = st.integers(0, 5)
VERSIONS = st.integers(1, 3)


class Machine(RuleBasedStateMachine):
    """`documents` are the versions that are to be visible, `rejected` the reasons of files, `unused` the contents that may still have vectors."""

    base: Path

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.base)) / "store"
        self.documents: dict[int, int] = {}
        self.rejected: dict[str, str] = {}
        self.stamps: dict[str, str] = {}
        self.removed: set[tuple[int, int]] = set()

    @initialize()
    def begin(self) -> None:
        self.store = Store(self.place, "writer@1")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.store.wait_for_index(60) == "ready"
            self.everything_is_as_it_should_be()
            self.store.close()
        shutil.rmtree(self.place.parent)

    def _there(self, number: int, version: int) -> None:
        if number in self.documents:
            self.removed.add((number, self.documents[number]))
        self.removed.discard((number, version))
        self.documents[number] = version
        self.rejected.pop(f"{number}.txt", None)
        self.stamps[f"{number}.txt"] = ""

    def _gone(self, number: int) -> None:
        if number in self.documents:
            self.removed.add((number, self.documents.pop(number)))

    @rule(number=NUMBERS, version=VERSIONS)
    def put(self, number: int, version: int) -> None:
        put(self.store, number, version)
        self._there(number, version)

    @rule(numbers=st.sets(NUMBERS, min_size=1), version=VERSIONS)
    def put_many(self, numbers: set[int], version: int) -> None:
        made = [parts(number, version) for number in sorted(numbers)]
        known = self.store.known_keys([key for _, _, keys, _ in made for key in keys])
        needed = {key: row for _, _, keys, rows in made for key, row in zip(keys, rows, strict=True) if key not in known}
        self.store.put_many([Entry(document, ROOT, passages, keys) for document, passages, keys, _ in made], needed)
        for number in numbers:
            self._there(number, version)

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        if number in self.documents:
            self.store.remove(identifier(number))
        else:
            with pytest.raises(KeyError):
                self.store.remove(identifier(number))
        self._gone(number)

    @rule(numbers=st.sets(NUMBERS))
    def remove_many(self, numbers: set[int]) -> None:
        self.store.remove_many([identifier(number) for number in numbers])
        for number in numbers:
            self._gone(number)

    @rule(number=NUMBERS, reason=st.sampled_from(["it is broken", "it is empty"]))
    def reject(self, number: int, reason: str) -> None:
        self.store.reject(ROOT, f"{number}.txt", reason, "f", "s", 1)
        self._gone(number)
        self.rejected[f"{number}.txt"] = reason
        self.stamps[f"{number}.txt"] = "s"

    @rule(number=NUMBERS)
    def forget(self, number: int) -> None:
        self.store.forget_rejected(ROOT, [f"{number}.txt"])
        self.rejected.pop(f"{number}.txt", None)

    @rule(number=NUMBERS, stamp=st.sampled_from(["a", "b"]))
    def touch(self, number: int, stamp: str) -> None:
        self.store.touch(ROOT, {f"{number}.txt": stamp})
        self.stamps[f"{number}.txt"] = stamp

    @rule()
    def finish(self) -> None:
        self.store.finish_sync(ROOT)
        keys = [key for number, version in self.removed for key in parts(number, version)[2]]
        assert self.store.known_keys(keys) == set()

    @rule(number=NUMBERS, version=VERSIONS)
    def find(self, number: int, version: int) -> None:
        assert visible(self.store, number, version) is (self.documents.get(number) == version)

    @rule(number=NUMBERS, chosen=st.sets(NUMBERS))
    def find_in_chosen(self, number: int, chosen: set[int]) -> None:
        ids = [identifier(one) for one in chosen]
        expected = {passage.id for one in chosen if one in self.documents for passage in parts(one, self.documents[one])[1]}
        assert {one for one, _ in self.store.nearest(vector(number, 1, 0), 50, ids)} == expected
        assert {one for one, _ in self.store.matching("part0 part1 part2", 50, ids)} == expected

    @rule()
    def wait(self) -> None:
        assert self.store.wait_for_index(60) == "ready"
        assert indexed(self.store)

    @rule()
    def close_and_open(self) -> None:
        self.store.close()
        self.store = Store(self.place, "writer@1")

    @rule()
    def kill_and_open(self) -> None:
        """What a kill leaves are the files as they are at that moment."""
        left = self.place.with_name("left")
        with self.store._database.writing:  # one moment for all files of the store; the index may change while it is copied, and is checked
            while True:
                try:
                    shutil.copytree(self.place, left, copy_function=_copy)
                    break
                except shutil.Error:  # a folder of the index went while it was copied, which no moment of a kill would show
                    shutil.rmtree(left)
        self.store.close()
        shutil.rmtree(self.place)
        left.rename(self.place)
        self.store = Store(self.place, "writer@1")

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {document.id for document in self.store.documents()} == {identifier(number) for number in self.documents}
        assert self.store.passage_count() == PARTS * len(self.documents)
        for number, version in self.documents.items():
            assert self.store.document(identifier(number)) == parts(number, version)[0]
            assert visible(self.store, number, version)
        assert self.store.rejected() == self.rejected
        known = self.store.known(ROOT)
        assert {source: one.reason for source, one in known.items()} == {**{f"{number}.txt": "" for number in self.documents}, **self.rejected}
        assert all(one.stamp == self.stamps[source] for source, one in known.items())
        assert not any("lost" in notice or "damaged" in notice for notice in self.store.notices())


def _copy(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return


def test_the_store_is_a_dictionary_that_survives() -> None:
    with in_memory() as folder, serving() as address, pytest.MonkeyPatch.context() as patched:
        patched.setattr(vectors, "probe", ask(address))
        Machine.base = folder
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
        )
