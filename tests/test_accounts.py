"""Tests of rag.accounts and its commands: who is let in, who has to wait, and that no secret is kept."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from index.database import Database
from index.errors import InvalidAccount, TooManyTries
from index.people import PEOPLE, TABLES, open_people
from rag import accounts as module
from rag import cli
from rag.access import Policy
from rag.accounts import FREE_TRIES, FREE_TRIES_AT_A_NAME, LONGEST_WAIT, PLACES, SESSION_SECONDS, Accounts, Costs, same
from rag.assistant import Assistant, open_assistant
from rag.conversations import Conversations
from rag.server import create_app
from rag.settings import Settings

CHEAP = Costs(time=1, memory=8, lanes=1)
RIGHT, OTHER, WRONG = "four words apart", "others beside them", "not the password"
HERE = "192.0.2.7"


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.moment = 1_000_000.0

    def __call__(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_people(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    made = Accounts(database, CHEAP, clock)
    made.add("ann", RIGHT, "admin")
    made.add("ben", OTHER)
    return made


def wrongly(accounts: Accounts, times: int, name: str = "ann", address: str = HERE) -> None:
    for _ in range(times):
        with pytest.raises(InvalidAccount):
            accounts.sign_in(name, WRONG, address)


# Signing in


def test_a_right_password_makes_a_session_and_a_wrong_one_does_not(accounts: Accounts) -> None:
    user = accounts.by_session(accounts.sign_in(" Ann ", RIGHT, HERE))
    assert user is not None
    assert (user.name, user.admin) == ("ann", True)
    said = set()
    for name, password in (("ann", WRONG), ("ann", OTHER), ("ann", ""), ("nobody", RIGHT), ("", ""), ("ann", RIGHT + " "), ("ann", "x" * 5_000)):
        with pytest.raises(InvalidAccount) as refused:
            accounts.sign_in(name, password, HERE)
        said.add(str(refused.value))
    assert len(said) == 1, "what is wrong is not told"


def test_an_unknown_name_costs_what_a_known_one_costs(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.prepare()
    looked: list[str] = []
    real = accounts._verify

    def verify(hashed: str, password: str) -> bool:
        looked.append(hashed)
        return real(hashed, password)

    monkeypatch.setattr(accounts, "_verify", verify)
    wrongly(accounts, 1)
    wrongly(accounts, 1, "nobody")
    assert len(looked) == 2
    assert {hashed.rpartition("$")[0].rpartition("$")[0] for hashed in looked} == {"$argon2id$v=19$m=8,t=1,p=1"}


def test_a_server_with_accounts_is_prepared_for_unknown_names(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    policy = Policy(False, ("*",))
    create_app(assistant, SimpleNamespace(policy=policy, accounts=accounts, conversations=Conversations(database), local_key=""))  # type: ignore[arg-type]
    for thread in threading.enumerate():
        if thread.name == "citewell-accounts":
            thread.join()
    assert accounts._nobody.startswith("$argon2id$")


def test_the_default_costs_are_those_of_the_rfc(database: Database) -> None:
    accounts = Accounts(database)
    assert accounts._hash(RIGHT).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_hash_of_other_costs_is_renewed_at_the_next_right_password(accounts: Accounts, database: Database, clock: Clock) -> None:
    dearer = Accounts(database, Costs(2, 16, 1), clock)
    dearer.sign_in("ann", RIGHT, HERE)
    assert database.rows("SELECT password FROM users WHERE name = 'ann'")[0][0].startswith("$argon2id$v=19$m=16,t=2,p=1$")
    assert dearer.by_session(dearer.sign_in("ann", RIGHT, HERE))


def test_ten_wrong_passwords_slow_the_eleventh(accounts: Accounts, clock: Clock) -> None:
    wrongly(accounts, FREE_TRIES)
    waits = []
    for _ in range(14):
        with pytest.raises(TooManyTries) as slowed:
            accounts.sign_in("ann", RIGHT, HERE)
        assert slowed.value.retry_after is not None
        waits.append(slowed.value.retry_after)
        clock.moment += slowed.value.retry_after
        wrongly(accounts, 1)
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert max(waits) == waits[-1] == LONGEST_WAIT
    clock.moment += LONGEST_WAIT
    accounts.sign_in("ann", RIGHT, HERE)
    clock.moment += LONGEST_WAIT
    wrongly(accounts, 1)
    accounts.sign_in("ann", RIGHT, "198.51.100.1")


def test_a_right_password_begins_the_count_of_its_name_anew(accounts: Accounts) -> None:
    for _ in range(4):
        wrongly(accounts, FREE_TRIES - 1)
        accounts.sign_in("ann", RIGHT, HERE)


@pytest.mark.parametrize("addresses", [[HERE] * 10, [f"2001:db8::{number:x}" for number in range(10)], [f"::ffff:{HERE}"] * 9 + [HERE]])
def test_an_address_is_slowed_over_all_names(accounts: Accounts, addresses: list[str]) -> None:
    for number, address in enumerate(addresses):
        wrongly(accounts, 1, f"name{number}", address)
    with pytest.raises(TooManyTries, match=r"Wait 1 second and try again"):
        accounts.sign_in("ann", RIGHT, addresses[-1])
    accounts.sign_in("ann", RIGHT, "198.51.100.1")


def test_an_account_of_ones_own_makes_guesses_at_others_not_free(accounts: Accounts) -> None:
    for _ in range(FREE_TRIES - 1):
        wrongly(accounts, 1, "ann")
        accounts.sign_in("ben", OTHER, HERE)
    wrongly(accounts, 1, "nobody")
    with pytest.raises(TooManyTries):
        accounts.sign_in("ann", RIGHT, HERE)


def test_nobody_keeps_a_known_user_out(accounts: Accounts) -> None:
    known, elsewhere = "2001:db8:1:1::1", "198.51.100.1"
    accounts.sign_in("ann", RIGHT, known)
    for number in range(FREE_TRIES_AT_A_NAME // FREE_TRIES):
        accounts.sign_in("ann", RIGHT, elsewhere if number == 5 else f"203.0.113.{number}")
        wrongly(accounts, FREE_TRIES, address=f"192.0.2.{number}")
        with pytest.raises(TooManyTries):
            accounts.sign_in("ann", RIGHT, f"192.0.2.{number}")
    with pytest.raises(TooManyTries):
        accounts.sign_in("ann", RIGHT, "198.51.100.99")
    wrongly(accounts, FREE_TRIES, "nobody", known)
    for address in (known, "2001:db8:1:1:2::2", elsewhere):
        assert accounts.sign_in("ann", RIGHT, address), "there she was before"
    wrongly(accounts, FREE_TRIES, address=known)
    with pytest.raises(TooManyTries):
        accounts.sign_in("ann", RIGHT, known)
    accounts.set_password("ann", OTHER)
    for address in (known, "198.51.100.99"):
        with pytest.raises(TooManyTries) if address == known else nullcontext():
            accounts.sign_in("ann", OTHER, address)


def test_so_many_places_of_a_user_are_known(accounts: Accounts, clock: Clock, database: Database) -> None:
    for number in range(PLACES + 5):
        clock.moment += 1
        accounts.sign_in("ann", RIGHT, f"192.0.2.{number}")
    accounts.sign_in("ben", OTHER, HERE)
    assert database.rows("SELECT count(*) FROM places") == [(PLACES + 1,)]
    accounts.remove("ann")
    assert database.rows("SELECT count(*) FROM places") == [(1,)]


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with closing(sqlite3.connect(tmp_path / "old" / PEOPLE)) as old:
        tables = TABLES.replace(", name BLOB NOT NULL DEFAULT x''", "").partition(";\nCREATE TABLE places")[0]
        old.executescript(f"{tables}; PRAGMA user_version = 1; INSERT INTO tries VALUES (x'00', 3, 1e12)")
    for _ in range(2):
        with closing(open_people(tmp_path / "old")) as database:
            accounts = Accounts(database, CHEAP)
            if not accounts.users():
                accounts.add("ann", RIGHT)
            wrongly(accounts, 1)
            assert accounts.sign_in("ann", RIGHT, HERE)
            assert database.rows("SELECT wrong FROM tries WHERE subject = x'00'") == [(3,)]


def test_wrong_passwords_are_forgotten_after_an_hour(accounts: Accounts, clock: Clock, database: Database) -> None:
    wrongly(accounts, FREE_TRIES)
    clock.moment += module.FORGOTTEN_AFTER + 1
    wrongly(accounts, 1, "ben")
    assert database.rows("SELECT sum(wrong) FROM tries") == [(3,)]


def test_a_hundred_tries_at_once_are_not_all_free(accounts: Accounts) -> None:
    outcomes: list[type[Exception]] = []

    def guess() -> None:
        try:
            accounts.sign_in("ann", WRONG, HERE)
        except Exception as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=guess) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(InvalidAccount) == FREE_TRIES
    assert outcomes.count(TooManyTries) == 30


# Sessions and keys


def test_a_session_ends_in_time_when_told_and_with_its_password(accounts: Accounts, clock: Clock) -> None:
    first, second = accounts.sign_in("ann", RIGHT, HERE), accounts.sign_in("ann", RIGHT, HERE)
    accounts.end_session(first)
    accounts.end_session("never was")
    assert accounts.by_session(first) is None
    assert accounts.by_session(second) is not None
    accounts.set_password("ann", "another one of them")
    assert accounts.by_session(second) is None
    third = accounts.sign_in("ann", "another one of them", HERE)
    clock.moment += SESSION_SECONDS + 1
    assert accounts.by_session(third) is None
    for nobodys in ("", "x", third + "x", "\ud800"):
        assert accounts.by_session(nobodys) is None


def test_who_is_disabled_is_out_at_once(accounts: Accounts) -> None:
    token, key = accounts.sign_in("ben", OTHER, HERE), accounts.create_key("ben")
    accounts.disable("ben")
    assert accounts.by_session(token) is accounts.by_key(key) is None
    with pytest.raises(InvalidAccount, match="wrong"):
        accounts.sign_in("ben", OTHER, HERE)
    accounts.disable("ben", False)
    assert accounts.by_session(token) is None
    assert accounts.by_key(key) == accounts.named("ben")
    accounts.remove("ben")
    assert accounts.by_key(key) is None
    assert [user.name for user in accounts.users()] == ["ann"]


def test_a_name_that_is_given_again_owns_nothing_of_before(accounts: Accounts) -> None:
    before = accounts.named("ben").id
    accounts.remove("ben")
    assert accounts.add("ben", OTHER).id != before


def test_a_key_is_listed_by_its_beginning_and_ends_when_revoked(accounts: Accounts) -> None:
    key, other = accounts.create_key("ben", "the  nightly\nreport"), accounts.create_key("ann")
    assert len(key) > 40
    assert accounts.by_key(key) == accounts.named("ben")
    (listed,) = accounts.keys("ben")
    assert key.startswith(listed.prefix)
    assert (listed.label, listed.user, bool(listed.used)) == ("the nightly report", "ben", True)
    with pytest.raises(InvalidAccount, match="no key that begins"):
        accounts.revoke_key(other, "ben")
    accounts.revoke_key(listed.prefix)
    assert accounts.by_key(key) is None
    assert accounts.by_key(other) is not None
    for nobodys in ("", "cw_", key, listed.prefix, other[:-1], "cw_\ud800"):
        assert accounts.by_key(nobodys) is None


def test_no_secret_is_kept(accounts: Accounts, database: Database, tmp_path: Path) -> None:
    token, key = accounts.sign_in("ann", RIGHT, HERE), accounts.create_key("ann")
    with pytest.raises(InvalidAccount):
        accounts.sign_in("my password by mistake", "", HERE)
    database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (tmp_path / PEOPLE).read_bytes()
    assert b"ann" in content
    for secret in (RIGHT, OTHER, token, key, "by mistake", HERE):
        assert secret.encode() not in content


# Names and passwords


@pytest.mark.parametrize("name", ["", " ", "local", "LOCAL", "-x", "a b", "a/b", "ä", "x" * 65, "a\n", "<b>"])
def test_what_cannot_be_a_name_is_said(accounts: Accounts, name: str) -> None:
    if name == "a\n":
        assert accounts.add(name, RIGHT).name == "a"
        return
    with pytest.raises(InvalidAccount, match="cannot be a user's name"):
        accounts.add(name, RIGHT)


@pytest.mark.parametrize(
    ("password", "why"),
    [("", "too short"), ("elevenchars", "too short"), ("x" * 1_025, "too long"), ("aaaaaaaaaaaa", "too easy"), ("password1234", "too easy"), ("Passwordpassword", "too easy"), ("somebody1111", "too easy")],
)  # fmt: skip
def test_what_is_no_good_password_is_said(accounts: Accounts, password: str, why: str) -> None:
    with pytest.raises(InvalidAccount, match=why):
        accounts.add("somebody", password)
    with pytest.raises(InvalidAccount, match="no user"):
        accounts.named("somebody")


def test_a_name_is_taken_once(accounts: Accounts) -> None:
    with pytest.raises(InvalidAccount, match="already"):
        accounts.add("ANN", RIGHT)


def test_secrets_are_compared_and_empty_ones_are_never_the_same() -> None:
    assert same("a", "a")
    assert not same("a", "b")
    assert not same("", "")


# The commands

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setattr(module, "Costs", lambda: CHEAP)
    monkeypatch.setenv("CITEWELL_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["citewell", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_users_are_managed_on_the_command_line(run: Run, tmp_path: Path) -> None:
    assert run("users", "list")[1].startswith("There are no users yet")
    assert run("users", "add", "ann", "--admin", "--password-stdin", typed=f"{RIGHT}\n") == (0, "'ann' may sign in now, as an admin.\n", "")
    assert run("users", "add", "ben", "--password-stdin", typed=OTHER)[0] == 0
    with closing(open_people(tmp_path / "data")) as database:
        accounts = Accounts(database, CHEAP)
        accounts.sign_in("ann", RIGHT, HERE)
        accounts.sign_in("ben", OTHER, HERE)
        Conversations(database).begin(accounts.named("ben").id)
        assert run("users", "disable", "ben")[0] == 0
        assert json.loads(run("users", "list", "--json")[1])[1] == {"name": "ben", "role": "member", "disabled": True}
        assert run("users", "enable", "ben")[0] == 0
        key = accounts.create_key("ben")
        assert run("users", "password", "ben", "--keep-keys", "--password-stdin", typed=OTHER)[1].endswith("Their keys work on.\n")
        assert accounts.by_key(key)
        assert run("users", "password", "ben", "--password-stdin", typed=RIGHT)[1].endswith("Their keys are revoked.\n")
        assert accounts.by_key(key) is None
        accounts.sign_in("ben", RIGHT, HERE)
        assert "with 1 conversations and 0 documents" in run("users", "remove", "ben")[1]
        assert run("users", "list")[1] == "ann  admin\n"


def test_who_is_removed_leaves_no_document_behind(run: Run, tmp_path: Path, no_real_embedder: None) -> None:
    run("users", "add", "ben", "--password-stdin", typed=OTHER)
    with closing(open_people(tmp_path / "data")) as database:
        ben = Accounts(database, CHEAP).named("ben")
    file = tmp_path / "notes.txt"
    file.write_text("The zebra of ben.")
    with open_assistant(Settings(data_dir=tmp_path / "data", model="none")) as assistant:
        assistant.for_user(ben).library.add("notes.txt", file)
        while assistant.library.work() is not None:
            time.sleep(0.02)
        assert assistant.store.owned(ben.id)
        code, _, told = run("users", "remove", "ben")
        assert (code, "citewell users disable ben" in told) == (1, True)
    assert "with 0 conversations and 1 documents" in run("users", "remove", "ben")[1]
    with open_assistant(Settings(data_dir=tmp_path / "data", model="none")) as assistant:
        assert assistant.store.documents() == []
    assert not list((tmp_path / "data").rglob("notes.txt"))
    assert run("users", "list")[1].startswith("There are no users yet")


def test_keys_are_managed_on_the_command_line(run: Run, tmp_path: Path) -> None:
    run("users", "add", "ann", "--password-stdin", typed=RIGHT)
    code, key, told = run("keys", "create", "ann", "--label", "cron")
    assert code == 0
    assert "not shown again" in told
    assert key.strip() not in run("keys", "list")[1]
    assert json.loads(run("keys", "list", "--json")[1])[0]["label"] == "cron"
    with closing(open_people(tmp_path / "data")) as database:
        assert Accounts(database, CHEAP).by_key(key.strip())
        assert run("keys", "revoke", key[:11])[0] == 0
        assert Accounts(database, CHEAP).by_key(key.strip()) is None
    assert run("keys", "list")[1].startswith("There are no keys")


def test_a_password_is_asked_twice_and_never_an_argument(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("users", "add", "ann", RIGHT)[0] == 2
    code, _, told = run("users", "add", "ann")
    assert (code, "--password-stdin" in told) == (1, True)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(io, "StringIO", Terminal)
    typed = iter([RIGHT, OTHER])
    monkeypatch.setattr("rag.accounts_cli.typer.prompt", lambda *_, hide_input: next(typed))
    code, _, told = run("users", "add", "ann")
    assert (code, "not the same" in told) == (1, True)


def test_what_is_wrong_is_one_plain_line(run: Run) -> None:
    for arguments in (("users", "disable", "who"), ("users", "remove", "who"), ("keys", "create", "who"), ("keys", "revoke", "cw_nothing")):
        code, out, told = run(*arguments)
        assert (code, out, told.count("\n")) == (1, "", 1)
        assert told.startswith("citewell: There is no")
