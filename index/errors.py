"""Every error that Citewell raises on purpose, as one tree. Each message says what to do next.

CitewellError
├── InvalidQuestion        an empty or over-long question
├── InvalidSettings        an unknown or impossible setting
├── InvalidAccount         a name, a password or a key that cannot be as asked
├── NotAllowed             what this user may not do
├── OverLimit              more than is allowed; `retry_after` says for how long
│   └── TooManyTries       wrong passwords
├── NotFetched             a web page that was not fetched; it never tells what of the inner network there is
├── UnreadableDocument     a file that cannot become a document
├── StoreError
│   ├── StoreInUse         another process owns this store; `address` and `key` say where and to whom it answers
│   ├── StoreTooNew        written by a newer Citewell
│   ├── StoreDamaged       a file of the store, or a backup, is not what was written
│   └── EmbedderChanged    the store's vectors were made by another embedding model
└── ModelUnavailable
    └── DamagedWeights     a model file whose SHA-256 is not its maker's
"""

from __future__ import annotations


class CitewellError(Exception):
    """Base of everything below; its text is meant for the user."""


class InvalidQuestion(CitewellError):
    """The question is empty, too long, or not text."""


class InvalidSettings(CitewellError):
    """A setting is unknown or its value cannot work."""


class InvalidAccount(CitewellError):
    """A user's name, password or key cannot be as asked, or there is no such user."""


class NotAllowed(CitewellError):
    """A user may not do this; the text says who may."""


class OverLimit(CitewellError):
    """More than is allowed: too often where `retry_after` tells the seconds to wait, too much where it is None, as waiting does not help."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyTries(OverLimit):
    """So many wrong passwords came before that the next one has to wait."""


class NotFetched(CitewellError):
    """A web page was not fetched, or its address is none that may be."""


class UnreadableDocument(CitewellError):
    """A file cannot be read as a document; the text says why. Where that is not `lasting` the file is tried again at every sync."""

    def __init__(self, message: str, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


class StoreError(CitewellError):
    """The store on disk cannot be opened or written as asked."""


class StoreInUse(StoreError):
    """Another process owns the store."""

    def __init__(self, message: str, address: str | None = None, key: str = "") -> None:
        super().__init__(message)
        self.address, self.key = address, key


class StoreTooNew(StoreError):
    """The store was written by a newer version of Citewell."""


class StoreDamaged(StoreError):
    """A file of the store was damaged while it was open, or a backup is damaged."""


class EmbedderChanged(StoreError):
    """The store's vectors come from another embedding model than the one set."""


class ModelUnavailable(CitewellError):
    """The language model cannot be had, loaded or reached, or broke off.

    `passing`: asking again may help. `hung`: it was waited for in vain. `retry_after`: seconds for which its server asked to be left alone, None where it did not.
    """

    def __init__(self, message: str, *, passing: bool = False, hung: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.hung = hung
        self.retry_after = retry_after


class DamagedWeights(ModelUnavailable):
    """A model file is not, byte for byte, what its maker published."""
