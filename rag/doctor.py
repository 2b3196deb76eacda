"""Looks at everything an answer needs and says what is wrong and what to do.

Opening the store may mend its vector index, as every opening does; nothing else is changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from index.embed import open_embedder
from index.errors import CitewellError, InvalidSettings, StoreInUse
from index.parse import Parser
from index.people import PEOPLE, open_people
from index.salvage import kept_aside
from index.store import Store
from rag import __version__, weights
from rag.settings import Settings

PACKAGES = ("chromadb", "gradio", "llama-index-core", "sentence-transformers", "torch", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `text` says what is there and, where it is not good, what to do."""

    about: str
    good: bool
    text: str


def examine(open_settings: Callable[[], Settings]) -> list[Finding]:
    """All findings, in the order in which they matter. Never raises a CitewellError: it becomes a finding."""
    findings = [_python(), *(_package(name) for name in PACKAGES)]
    try:
        settings = open_settings()
    except CitewellError as error:
        return [*findings, Finding("settings", False, str(error))]
    findings.append(Finding("settings", True, f"model '{settings.model_shown}', embedder '{settings.embedder}'"))
    return [
        *findings,
        _folder(settings.data_dir),
        _store(settings),
        *_kept(settings.data_dir),
        _readers(),
        _embedder(settings),
        _model(settings),
        *_second_model(settings),
        _visitors(settings),
        _port(settings),
    ]


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("Citewell", good, f"{__version__} on Python {platform.python_version()}" + ("" if good else "; install Python 3.11 or newer"))


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed; run `make install`")


def _folder(folder: Path) -> Finding:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("data folder", False, f"{folder} cannot be written; choose another with CITEWELL_DATA_DIR")
    free = shutil.disk_usage(there).free
    good = free > 200_000_000
    advice = "" if good else "; make room, or choose another disk with CITEWELL_DATA_DIR"
    if os.name == "posix" and folder.exists() and (open_to := stat.S_IMODE(folder.stat().st_mode)) & 0o077:
        good, advice = False, f"{advice}; others on this machine may look into it (mode {open_to:o}): `chmod 700` it, unless that is meant"
    return Finding("data folder", good, f"{folder}, {free / 1e9:.1f} GB free{advice}")


def _store(settings: Settings) -> Finding:
    if settings.shared:
        return _shared_store(settings)
    if not (settings.data_dir / "citewell.sqlite3").exists():
        return Finding("store", True, "none yet; the first question or sync makes it")
    try:
        store = Store(settings.data_dir, open_embedder(settings.embedder).identity)
    except StoreInUse as error:
        return Finding("store", True, f"in use by another Citewell{f', which answers at {error.address}' if error.address else ''}")
    except (CitewellError, ImportError) as error:
        return Finding("store", False, str(error))
    try:
        store.wait_for_index(5.0)
        if notices := store.notices():
            return Finding("store", False, " ".join(notices))
        rejected = len(store.rejected())
        more = f", {rejected} files rejected" if rejected else ""
        return Finding("store", True, f"{len(store.documents())} documents, {store.passage_count()} passages{more}")
    finally:
        store.close()


def _shared_store(settings: Settings) -> Finding:
    from index.postgres import PostgresStore
    from rag.assistant import open_store

    try:
        store = open_store(settings, open_embedder(settings.embedder).identity)
    except (CitewellError, ImportError) as error:
        return Finding("store", False, str(error))
    try:
        assert isinstance(store, PostgresStore)
        store.wait_for_index(5.0)
        notices = store.notices()
        text = (
            f"shared: {store.server}; {store.document_count()} documents, {store.passage_count()} passages, {store.rejection_count()} files rejected"
        )
        return Finding("store", not notices, ". ".join([text, *notices]))
    except CitewellError as error:
        return Finding("store", False, str(error))
    finally:
        store.close()


def _kept(folder: Path) -> list[Finding]:
    """Folders with a store's earlier files, which nobody else tells of once they are made."""
    kept = kept_aside(folder)
    if not kept:
        return []
    size = sum(path.stat().st_size for one in kept for path in one.rglob("*") if path.is_file())
    where = " and ".join(map(str, kept))
    text = f"the store's files as they were before a restore or before damage, {size / 1e6:.1f} MB in {where}; if nothing is missing, you can delete them"
    return [Finding("older files", True, text)]


def _readers() -> Finding:
    try:
        with Parser(1) as parser:
            connected = parser.connected()
    except CitewellError as error:
        return Finding("readers of files", False, f"no reader can be started: {error}")
    if connected is None:
        return Finding("readers of files", True, "kept from the network within Python; this system has no networks for single processes")
    if not connected:
        return Finding("readers of files", True, "cut off from the network by the system")
    text = f"not cut off from the network by the system ({connected}), only within Python; let the user that runs Citewell make user and network namespaces"
    return Finding("readers of files", False, f"{text} (under systemd: `RestrictNamespaces=user net`)")


def _embedder(settings: Settings) -> Finding:
    try:
        return Finding("embedding model", True, open_embedder(settings.embedder).identity)
    except (CitewellError, ImportError) as error:
        return Finding("embedding model", False, str(error))


def _model(settings: Settings) -> Finding:
    from rag.assistant import configured_model

    try:
        _, status = configured_model(settings)
    except CitewellError as error:
        return Finding("language model", False, str(error))
    if status.state == "fetching":
        text = f"'{settings.model}' has not been fetched; run `citewell fetch`. Until then the documents' own sentences answer"
        return Finding("language model", False, text)
    if settings.model in weights.CATALOG:
        path = settings.models_dir / weights.CATALOG[settings.model].file
        return Finding("language model", True, f"'{settings.model}' at {path}, its maker's SHA-256 verified")
    return Finding("language model", True, f"'{status.name}'" if status.state == "ready" else "none; the documents' own sentences answer")


def _second_model(settings: Settings) -> list[Finding]:
    from rag.assistant import fallback_model

    try:
        second = fallback_model(settings)
    except CitewellError as error:
        return [Finding("second model", False, str(error))]
    return [Finding("second model", True, f"'{second.name}'")] if second is not None else []


def _visitors(settings: Settings) -> Finding:
    from rag.access import decide
    from rag.accounts import Accounts

    with ExitStack() as held:

        def accounts() -> Accounts:
            if not (settings.data_dir / PEOPLE).exists():
                raise InvalidSettings("Accounts are demanded, and there is none yet. Make one with `citewell users add NAME --admin`.")
            return Accounts(held.enter_context(closing(open_people(settings.data_dir))))

        try:
            policy = decide(settings, accounts)
            if policy.open:
                return Finding("who may come in", True, "whoever is on this machine, and nobody else")
            users = [user for user in accounts().users() if not user.disabled]
        except CitewellError as error:
            return Finding("who may come in", False, str(error))
    admins = sum(user.admin for user in users)
    way = "https by a certificate" if settings.tls_cert else f"https by the proxy at {', '.join(settings.trusted_proxies)}"
    text = f"{len(users)} account{'s' * (len(users) != 1)}, {admins or 'none'} of them an admin's; {way}"
    return Finding("who may come in", bool(admins), text + ("" if admins else ". Make an admin with `citewell users add NAME --admin`"))


def _port(settings: Settings) -> Finding:
    try:
        socket.create_connection((settings.host, settings.port), timeout=1).close()
        taken = True
    except socket.gaierror:
        return Finding("port", False, f"the host '{settings.host}' is not known; leave CITEWELL_HOST at 127.0.0.1")
    except OSError:
        taken = False
    state = "in use (by Citewell, if it runs); another can be set with --port" if taken else "free"
    return Finding("port", True, f"{settings.port} is {state}")
