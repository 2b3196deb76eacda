"""Accounts: users with passwords, the sessions of their browsers, keys for their programs. What is secret is kept as hashes only."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from index.database import Database
from index.errors import InvalidAccount, NotAllowed, TooManyTries
from index.schema import now

if TYPE_CHECKING:
    from argon2 import PasswordHasher

Role = Literal["admin", "member"]

LOCAL = "local"
"""The id and name of the one user of a Citewell that serves its own machine alone."""

SHORTEST, LONGEST = 12, 1_024
"""Of a password, in characters. The longest is for the hash's sake: it is to cost the same for everybody."""

SESSION_SECONDS = 14 * 86_400.0
FREE_TRIES, FREE_TRIES_AT_A_NAME = 10, 100
"""So many wrong passwords from an address, for one name and for all, and so many for a name from everywhere, are answered at once. The latter are far more, as
they let anybody keep somebody out."""

PLACES = 20
"""So many of the networks from which a user signed in are known: there, wrong passwords from elsewhere keep nobody out."""

LONGEST_WAIT = 900.0
FORGOTTEN_AFTER = 3_600.0
"""Seconds: how long the next try may have to wait at most, and after which time without a wrong password earlier ones count no more."""

HASHING_AT_ONCE = 2
"""Each takes as much memory as Costs tells, so that strangers could use up all of it."""

USED_EVERY = 60
MOST_KEYS = 50
"""Of one user."""

KEY_MARK = "cw_"
PREFIX_LENGTH = 11

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")

COMMON = ("password", "passwort", "citewell", "qwertyuiop", "123456789", "letmein", "administrator", "iloveyou")
"""Passwords that are one of these with little around them are among the first that anybody tries."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask. `id` stays theirs for ever and owns documents and conversations; a name can be given again, an id cannot."""

    id: str
    name: str
    role: Role = "member"
    disabled: bool = False

    @property
    def admin(self) -> bool:
        """Whether they may change what is everybody's."""
        return self.role == "admin"


LOCAL_USER = User(LOCAL, LOCAL, "admin")


@dataclass(frozen=True, slots=True)
class Key:
    """What a listing says of a key: its beginning, what it is for, and when it was made and last used (ISO 8601 in UTC, empty for never)."""

    prefix: str
    label: str
    user: str
    created: str
    used: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What one password costs to check, by Argon2id: rounds, KiB of memory, lanes. The default is the second choice of RFC 9106."""

    time: int = 3
    memory: int = 65_536
    lanes: int = 4


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a wrong password counts for, how many are free for it, and the name that it counts against, as hashes."""

    subject: bytes
    free: int
    name: bytes


class Accounts:
    """Users, sessions and keys in the people's file. Its methods may be called from any thread, and see what another process changes at once.

    Everything raises StoreError where the file cannot be read or written, InvalidAccount for what cannot be as asked.
    """

    def __init__(self, database: Database, costs: Costs | None = None, clock: Callable[[], float] = time.time) -> None:
        self._database, self._costs, self._clock = database, costs or Costs(), clock
        self._hashing = threading.BoundedSemaphore(HASHING_AT_ONCE)
        self._preparing = threading.Lock()
        self._hasher: PasswordHasher | None = None
        self._nobody = ""

    # Users

    def add(self, name: str, password: str, role: Role = "member") -> User:
        """Makes a user. Raises InvalidAccount where the name is taken or cannot be one, or the password is too easy."""
        name = _name(name)
        _check_password(password, name)
        user, hashed = User(uuid4().hex, name, role), self._hash(password)
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
                raise InvalidAccount(
                    f"There is a user '{name}' already. Choose another name, or give them a new password with `citewell users password`."
                )
            connection.execute("INSERT INTO users VALUES (?, ?, ?, ?, 0, ?)", (user.id, name, hashed, role, now()))
        return user

    def users(self) -> list[User]:
        """All users by name."""
        return [_user(row) for row in self._database.rows("SELECT id, name, role, disabled FROM users ORDER BY name")]

    def named(self, name: str) -> User:
        """The user of a name. Raises InvalidAccount where there is none."""
        for row in self._database.rows("SELECT id, name, role, disabled FROM users WHERE name = ?", (name.strip().lower(),)):
            return _user(row)
        raise InvalidAccount(f"There is no user '{name}'. `citewell users list` shows who there is.")

    def set_password(self, name: str, password: str, keep_keys: bool = False) -> None:
        """Gives a user another password, signs them out everywhere, ends their keys unless these are to stay, and lets them try again at once."""
        user = self.named(name)
        _check_password(password, user.name)
        hashed = self._hash(password)
        with self._database.transaction() as connection:
            connection.execute("UPDATE users SET password = ? WHERE id = ?", (hashed, user.id))
            connection.execute("DELETE FROM sessions WHERE user = ?", (user.id,))
            connection.execute("DELETE FROM tries WHERE name = ?", (_subject("name", user.name),))
            connection.execute("DELETE FROM places WHERE user = ?", (user.id,))
            if not keep_keys:
                connection.execute("DELETE FROM keys WHERE user = ?", (user.id,))

    def disable(self, name: str, disabled: bool = True) -> None:
        """Lets a user in no more, neither by password nor session nor key, or again by password and key."""
        user = self.named(name)
        with self._database.transaction() as connection:
            connection.execute("UPDATE users SET disabled = ? WHERE id = ?", (int(disabled), user.id))
            connection.execute("DELETE FROM sessions WHERE user = ?", (user.id,))

    def remove(self, name: str) -> None:
        """Makes a user gone, with sessions and keys. What they own is not touched."""
        user = self.named(name)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM users WHERE id = ?", (user.id,))

    # Passwords

    def sign_in(self, name: str, password: str, address: str) -> str:
        """The token of a new session; `address` is where the try comes from.

        Raises InvalidAccount, in the same words and the same time whether the name, the password or neither is known, and TooManyTries where too
        many were wrong: then the password was not looked at.
        """
        user = self._looked_at(name, password, address)
        if not user:
            raise InvalidAccount("The name or the password is wrong. Try again, or ask whoever runs this Citewell for a new password.")
        return self.begin_session(user)

    def change_password(self, user: User, old: str, new: str, address: str, session: str) -> None:
        """Gives a user the password that they want instead of their own, and ends all their sessions but this one. Their keys stay.

        Raises InvalidAccount where the new one is too easy, NotAllowed where the old one is wrong, and TooManyTries as sign_in() does.
        """
        _check_password(new, user.name)
        if self._looked_at(user.name, old, address) != user.id:
            raise NotAllowed("The old password is wrong. Try again, or ask whoever runs this Citewell for a new one.")
        hashed = self._hash(new)
        with self._database.transaction() as connection:
            connection.execute("UPDATE users SET password = ? WHERE id = ?", (hashed, user.id))
            connection.execute("DELETE FROM sessions WHERE user = ? AND token <> ?", (user.id, _hashed(session)))

    def _looked_at(self, name: str, password: str, address: str) -> str:
        """The id of the user whose name and password these are; empty where they are nobody's. Raises TooManyTries."""
        name, network = name.strip().lower()[:LONGEST], network_of(address)
        named = _subject("name", name)
        here = _Tried(_subject("name here", f"{name} {network}"), FREE_TRIES, named)
        others = (_Tried(_subject("address", network), FREE_TRIES, b""), _Tried(named, FREE_TRIES_AT_A_NAME, named))
        place = _subject("place", network)
        known = self._database.rows("SELECT 1 FROM places p JOIN users u ON u.id = p.user WHERE u.name = ? AND p.place = ?", (name, place))
        self._count((here,) if known else (here, *others), (here, *others))
        rows = self._database.rows("SELECT password, id, disabled FROM users WHERE name = ?", (name,))
        hashed, user, disabled = rows[0] if rows else (self._dummy(), "", 1)
        right = self._verify(hashed, password[: LONGEST + 1])
        if not right or disabled:
            return ""
        renewed = self._hash(password) if self._hashes().check_needs_rehash(hashed) else ""
        with self._database.transaction() as connection:
            # The address keeps what it has against it: else an account of one's own would make guesses at others' free. So does the name.
            connection.execute("DELETE FROM tries WHERE subject = ?", (here.subject,))
            for tried in others:
                connection.execute("UPDATE tries SET wrong = wrong - 1 WHERE subject = ? AND wrong > 0", (tried.subject,))
            connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (user, place, self._clock()))
            connection.execute(
                "DELETE FROM places WHERE user = ? AND place NOT IN (SELECT place FROM places WHERE user = ? ORDER BY last DESC LIMIT ?)",
                (user, user, PLACES),
            )
            if renewed:
                connection.execute("UPDATE users SET password = ? WHERE id = ?", (renewed, user))
        return user

    def _count(self, slowing: tuple[_Tried, ...], counted: tuple[_Tried, ...]) -> None:
        """Counts a try as wrong before it is looked at, so that a hundred at the same time are not all free. Raises TooManyTries."""
        moment = self._clock()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM tries WHERE last < ?", (moment - FORGOTTEN_AFTER,))
            wait = 0.0
            for tried in slowing:
                for wrong, last in connection.execute("SELECT wrong, last FROM tries WHERE subject = ?", (tried.subject,)).fetchall():
                    if wrong >= tried.free:
                        wait = max(wait, last + min(2.0 ** min(wrong - tried.free, 30), LONGEST_WAIT) - moment)
            if wait > 0:
                raise TooManyTries(f"Too many passwords were wrong. Wait {_told(wait)} and try again.", wait)
            for tried in counted:
                connection.execute(
                    "INSERT INTO tries VALUES (?, 1, ?, ?) ON CONFLICT (subject) DO UPDATE SET wrong = wrong + 1, last = excluded.last",
                    (tried.subject, moment, tried.name),
                )

    def _hashes(self) -> PasswordHasher:
        with self._preparing:
            if self._hasher is None:
                from argon2 import PasswordHasher

                self._hasher = PasswordHasher(self._costs.time, self._costs.memory, self._costs.lanes)
            return self._hasher

    def _hash(self, password: str) -> str:
        with self._hashing:
            return self._hashes().hash(password.encode("utf-8", "surrogatepass"))

    def _dummy(self) -> str:
        """The hash of a password that nobody has, to be looked at where there is no such user."""
        if not self._nobody:
            self._nobody = self._hash(secrets.token_urlsafe(32))
        return self._nobody

    def _verify(self, hashed: str, password: str) -> bool:
        from argon2.exceptions import Argon2Error, InvalidHashError

        with self._hashing:
            try:
                return self._hashes().verify(hashed, password.encode("utf-8", "surrogatepass"))
            except (Argon2Error, InvalidHashError):
                return False

    def prepare(self) -> None:
        """Does beforehand what would make the first try for an unknown name slower than for a known one."""
        self._dummy()

    # Sessions

    def begin_session(self, user: str) -> str:
        """The token of a new session of the user with this id; it is kept as a hash and told only here."""
        token, moment = secrets.token_urlsafe(32), self._clock()
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE expires < ?", (moment,))
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (_hashed(token), user, moment, moment + SESSION_SECONDS))
        return token

    def by_session(self, token: str) -> User | None:
        """Whose session it is; None where it has ended, was ended, or is nobody's."""
        rows = self._database.rows(
            "SELECT u.id, u.name, u.role, u.disabled FROM sessions s JOIN users u ON u.id = s.user WHERE s.token = ? AND s.expires > ? AND NOT u.disabled",
            (_hashed(token), self._clock()),
        )
        return _user(rows[0]) if rows else None

    def end_session(self, token: str) -> None:
        """Ends a session; one that there is not is no error."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE token = ?", (_hashed(token),))

    # Keys

    def create_key(self, name: str, label: str = "") -> str:
        """A new key of a user; it is kept as a hash and told only here. Raises InvalidAccount where they have as many as there may be."""
        user, key = self.named(name), KEY_MARK + secrets.token_urlsafe(32)
        with self._database.transaction() as connection:
            ((number,),) = connection.execute("SELECT count(*) FROM keys WHERE user = ?", (user.id,)).fetchall()
            if number >= MOST_KEYS:
                raise InvalidAccount(f"'{user.name}' has {MOST_KEYS} keys already, the most there may be. Revoke one that is not needed any more.")
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, '')", (_hashed(key), key[:PREFIX_LENGTH], user.id, " ".join(label.split())[:100], now())
            )
        return key

    def keys(self, name: str | None = None) -> list[Key]:
        """All keys, or those of one user, in the order in which they were made."""
        user = None if name is None else self.named(name).id
        rows = self._database.rows(
            "SELECT k.prefix, k.label, u.name, k.created, k.used FROM keys k JOIN users u ON u.id = k.user WHERE ? IS NULL OR u.id = ? ORDER BY k.rowid",
            (user, user),
        )
        return [Key(*row) for row in rows]

    def revoke_key(self, prefix: str, name: str | None = None) -> None:
        """Ends a key at once, told by its beginning; with `name` only one of that user. Raises InvalidAccount where there is no such key."""
        user = None if name is None else self.named(name).id
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM keys WHERE prefix = ? AND (? IS NULL OR user = ?)", (prefix[:PREFIX_LENGTH], user, user)).rowcount
        if not gone:
            raise InvalidAccount(f"There is no key that begins with '{prefix[:PREFIX_LENGTH]}'. `citewell keys list` shows which there are.")

    def by_key(self, key: str) -> User | None:
        """Whose key it is; None where it was revoked or is nobody's."""
        if not key.startswith(KEY_MARK):
            return None
        secret = _hashed(key)
        rows = self._database.rows(
            "SELECT u.id, u.name, u.role, u.disabled, k.used FROM keys k JOIN users u ON u.id = k.user WHERE k.secret = ? AND NOT u.disabled",
            (secret,),
        )
        if not rows:
            return None
        moment = now()
        # To the minute is enough, and a write for every request is not.
        if moment[: -len("00+00:00")] != rows[0][4][: -len("00+00:00")]:
            with self._database.transaction() as connection:
                connection.execute("UPDATE keys SET used = ? WHERE secret = ?", (moment, secret))
        return _user(rows[0][:4])


def same(first: str, second: str) -> bool:
    """Whether two secrets are the same, in a time that tells nothing of where they differ; empty ones never are."""
    return bool(first) and hmac.compare_digest(first.encode("utf-8", "surrogatepass"), second.encode("utf-8", "surrogatepass"))


def _user(row: tuple[str, str, Role, int]) -> User:
    return User(row[0], row[1], row[2], bool(row[3]))


def _name(name: str) -> str:
    plain = name.strip().lower()
    if not _NAME.fullmatch(plain) or plain == LOCAL:
        raise InvalidAccount(
            f"'{name}' cannot be a user's name. Take up to 64 letters from a to z, digits, and . _ @ - between them; '{LOCAL}' is taken by Citewell itself."
        )
    return plain


def _check_password(password: str, name: str) -> None:
    """Raises InvalidAccount for a password that is too short, too long, or among the first that anybody tries."""
    if len(password) < SHORTEST:
        raise InvalidAccount(
            f"The password is too short: it needs at least {SHORTEST} characters. Four words that do not belong together are easy to keep in mind."
        )
    if len(password) > LONGEST:
        raise InvalidAccount(f"The password is too long: it may have at most {LONGEST:,} characters.")
    plain = password.lower()
    for known in (*COMMON, name):
        plain = plain.replace(known, "") if len(known) > 3 else plain
    if len(set(plain)) < 5:
        raise InvalidAccount(
            "The password is too easy to guess. Take four words that do not belong together, and neither your name nor a row of keys."
        )


def _hashed(secret: str) -> bytes:
    """What is kept of a random secret: it is too long to be guessed, so one round of a fast hash is enough."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _subject(kind: str, value: str) -> bytes:
    """What a count is kept under. A hash, as people type their password into the field for the name."""
    return blake2b(f"{kind}:{value}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 the first half, as everybody has the whole of the other."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else parsed.exploded[:19]
    return str(parsed)


def _told(seconds: float) -> str:
    whole = max(1, ceil(seconds))
    return f"{whole} second{'s' * (whole > 1)}" if whole < 120 else f"{ceil(whole / 60)} minutes"
