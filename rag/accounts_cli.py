"""`citewell users` and `citewell keys`: who may ask. Passwords are typed or piped in and are never arguments, which others on the machine could read.

Both work beside a running server, which sees at once what they change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from index.database import Database
    from rag.accounts import Accounts

users = typer.Typer(help="Who may ask, where Citewell serves others than this machine.", no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(help="Keys with which users' programs ask.", no_args_is_help=True, rich_markup_mode=None)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the store lives.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input, its first line.")]


@contextmanager
def _people(data_dir: Path | None) -> Iterator[tuple[Database, Accounts]]:
    from index.people import open_people
    from rag.accounts import Accounts

    with closing(open_people(_folder(data_dir))) as database:
        yield database, Accounts(database)


def _folder(data_dir: Path | None) -> Path:
    from rag.settings import Settings

    return (Settings() if data_dir is None else Settings(data_dir=data_dir)).data_dir


def _password(from_stdin: bool) -> str:
    """A password, asked twice and not shown, or the first line of standard input."""
    from index.errors import InvalidAccount

    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidAccount("There is no terminal to ask for the password at. Pipe it in, with --password-stdin.")
    password: str = typer.prompt("Password", hide_input=True)
    if password != typer.prompt("The same again", hide_input=True):
        raise InvalidAccount("The two passwords are not the same. Nothing was changed; run it again.")
    return password


@users.command("add")
def add(
    name: str,
    admin: Annotated[bool, typer.Option("--admin", help="May also change the documents that are everybody's.")] = False,
    password_stdin: Stdin = False,
    data_dir: DataDir = None,
) -> None:
    """Let somebody in, with a password that is asked for."""
    with _people(data_dir) as (_, accounts):
        user = accounts.add(name, _password(password_stdin), "admin" if admin else "member")
    print(f"'{user.name}' may sign in now, as {'an admin' if admin else 'a member'}.")


@users.command("list")
def list_users(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Say who may sign in."""
    with _people(data_dir) as (_, accounts):
        known = accounts.users()
    if as_json:
        print(json.dumps([{"name": user.name, "role": user.role, "disabled": user.disabled} for user in known], indent=2))
    elif not known:
        print("There are no users yet. `citewell users add NAME --admin` makes the first.")
    else:
        for user in known:
            print(f"{user.name}  {user.role}{'  disabled' if user.disabled else ''}")


@users.command("disable")
def disable(name: str, data_dir: DataDir = None) -> None:
    """Keep somebody out from now on; what they own stays."""
    with _people(data_dir) as (_, accounts):
        accounts.disable(name)
    print(f"'{name}' is kept out, and signed out everywhere. `citewell users enable {name}` takes it back.")


@users.command("enable")
def enable(name: str, data_dir: DataDir = None) -> None:
    """Let somebody in again who was disabled."""
    with _people(data_dir) as (_, accounts):
        accounts.disable(name, False)
    print(f"'{name}' may sign in again.")


@users.command("password")
def password(
    name: str,
    keep_keys: Annotated[bool, typer.Option("--keep-keys", help="Let their programs' keys work on.")] = False,
    password_stdin: Stdin = False,
    data_dir: DataDir = None,
) -> None:
    """Give somebody another password, sign them out everywhere and revoke their keys."""
    with _people(data_dir) as (_, accounts):
        accounts.named(name)
        accounts.set_password(name, _password(password_stdin), keep_keys)
    print(f"'{name}' has another password, and is signed out everywhere. Their keys {'work on' if keep_keys else 'are revoked'}.")


@users.command("remove")
def remove(name: str, data_dir: DataDir = None) -> None:
    """Make somebody gone, with sessions, keys, conversations, and documents that are theirs alone. Citewell must not run meanwhile."""
    from index.database import NAME
    from index.errors import InvalidAccount, StoreInUse
    from rag.assistant import open_assistant
    from rag.conversations import Conversations
    from rag.settings import Settings

    with _people(data_dir) as (database, accounts):
        user, documents = accounts.named(name), 0
        settings = Settings(data_dir=_folder(data_dir), model="none")
        if settings.shared or (settings.data_dir / NAME).exists():
            try:
                with open_assistant(settings) as assistant:
                    documents = assistant.library.remove_user(user.id)
            except StoreInUse:
                raise InvalidAccount(
                    f"'{user.name}' cannot be removed while Citewell runs, as their documents go too. Stop it first; until then "
                    f"`citewell users disable {user.name}` keeps them out."
                ) from None
        conversations = Conversations(database).delete_all(user.id)
        accounts.remove(name)
    print(f"'{user.name}' is gone, with {conversations} conversations and {documents} documents.")


@keys.command("create")
def create(
    name: str, label: Annotated[str, typer.Option("--label", help="What it is for, as `keys list` shows it.")] = "", data_dir: DataDir = None
) -> None:
    """Make a key for a user's programs. It is shown this once, on standard output."""
    with _people(data_dir) as (_, accounts):
        key = accounts.create_key(name, label)
    print(
        f"Keep this key, it is not shown again. Programs send it as 'Authorization: Bearer KEY'. `citewell keys revoke {key[:11]}` ends it.",
        file=sys.stderr,
    )
    print(key)


@keys.command("list")
def list_keys(
    name: Annotated[str | None, typer.Argument(help="Show this user's alone.")] = None, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Say which keys there are, by their beginnings, and when each was last used."""
    from dataclasses import asdict

    with _people(data_dir) as (_, accounts):
        known = accounts.keys(name)
    if as_json:
        print(json.dumps([asdict(key) for key in known], indent=2))
    elif not known:
        print("There are no keys. `citewell keys create NAME` makes one.")
    else:
        for key in known:
            print(
                f"{key.prefix}…  {key.user}  made {key.created}  {'used ' + key.used if key.used else 'never used'}{'  ' + key.label if key.label else ''}"
            )


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(help="The key, or its beginning as `keys list` shows it.")], data_dir: DataDir = None) -> None:
    """End a key at once."""
    with _people(data_dir) as (_, accounts):
        accounts.revoke_key(key.removesuffix("…"))
    print("The key is revoked.")
