"""Tests of index.threads: a sync's steps wait for searches, and not for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from index import threads
from index.threads import behind_others, give_way, in_front, is_behind


def stepped(done: threading.Event) -> None:
    give_way()
    done.set()


def test_a_step_waits_until_the_last_search_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    done = threading.Event()
    with ThreadPoolExecutor(1, initializer=behind_others) as sync, in_front():
        with in_front():
            step = sync.submit(stepped, done)
        assert not done.wait(0.2)
    step.result(10)
    assert done.is_set()


def test_a_step_waits_for_a_search_that_takes_long_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 0.01)
    with ThreadPoolExecutor(1, initializer=behind_others) as sync, in_front():
        sync.submit(give_way).result(10)


def test_who_does_not_stand_back_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    assert not is_behind()
    began = time.monotonic()
    with in_front():
        give_way()
    assert time.monotonic() - began < 30


def test_a_search_that_fails_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    with pytest.raises(ValueError, match="broke"), in_front():
        raise ValueError("broke")
    with ThreadPoolExecutor(1, initializer=behind_others) as sync:
        sync.submit(give_way).result(10)
