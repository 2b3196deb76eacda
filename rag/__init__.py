"""Citewell: answers from your documents, every claim numbered, every number the exact words that bear it out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.errors import CitewellError as CitewellError
    from index.errors import DamagedWeights as DamagedWeights
    from index.errors import EmbedderChanged as EmbedderChanged
    from index.errors import InvalidQuestion as InvalidQuestion
    from index.errors import InvalidSettings as InvalidSettings
    from index.errors import ModelUnavailable as ModelUnavailable
    from index.errors import StoreDamaged as StoreDamaged
    from index.errors import StoreError as StoreError
    from index.errors import StoreInUse as StoreInUse
    from index.errors import StoreTooNew as StoreTooNew
    from index.errors import UnreadableDocument as UnreadableDocument
    from index.sync import SyncReport as SyncReport
    from index.types import Hit as Hit
    from index.types import Passage as Passage
    from index.types import Span as Span
    from rag.assistant import Assistant as Assistant
    from rag.assistant import aask as aask
    from rag.assistant import ask as ask
    from rag.assistant import astream as astream
    from rag.assistant import open_assistant as open_assistant
    from rag.assistant import stream as stream
    from rag.settings import Settings as Settings
    from rag.types import Answer as Answer
    from rag.types import Citation as Citation
    from rag.types import Event as Event
    from rag.types import Evidence as Evidence
    from rag.types import Timings as Timings
    from rag.types import Token as Token
    from rag.types import Turn as Turn
    from rag.types import Usage as Usage

__version__ = "0.1.0"

_HOMES = {
    "index.errors": (
        "CitewellError DamagedWeights EmbedderChanged InvalidQuestion InvalidSettings ModelUnavailable "
        "StoreDamaged StoreError StoreInUse StoreTooNew UnreadableDocument"
    ),
    "index.sync": "SyncReport",
    "index.types": "Hit Passage Span",
    "rag.assistant": "Assistant aask ask astream open_assistant stream",
    "rag.settings": "Settings",
    "rag.types": "Answer Citation Event Evidence Timings Token Turn Usage",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import rag` and `citewell --help` are instant."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'rag' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
