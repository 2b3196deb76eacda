"""What is counted of the questions that come through the doors of a server, for Prometheus. No word of a question or document is in it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from index.errors import CitewellError, InvalidQuestion
from rag.types import Answer, Event

if TYPE_CHECKING:
    from rag.assistant import Assistant

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Door = Literal["page", "http", "openai", "mcp"]
DOORS: tuple[Door, ...] = ("page", "http", "openai", "mcp")
OUTCOMES = ("answered", "refused", "asked_back", "failed", "left", "rejected")
"""`left`: whoever asked went away before the end. `rejected`: nothing that can be asked, or of a document that is not there."""

MODEL_STATES = ("ready", "loading", "fetching", "missing", "none")

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Bounds of the histograms: from a search in a small store to a long answer on an old laptop."""

Counted = Callable[[Door, Iterator[Event]], Iterator[Event]]


class Metrics:
    """Counts the questions of one assistant in a registry of its own. May be used from any thread."""

    def __init__(self, assistant: Assistant) -> None:
        registry = self._registry = CollectorRegistry()
        self._questions = Counter("citewell_questions", "Questions by door and by what came of them", ["door", "outcome"], registry=registry)
        self._evidence = Histogram("citewell_evidence_seconds", "From the question to the evidence", buckets=SECONDS, registry=registry)
        self._first = Histogram("citewell_first_token_seconds", "From the question to the draft's first token", buckets=SECONDS, registry=registry)
        self._total = Histogram("citewell_answer_seconds", "From the question to the verified answer", buckets=SECONDS, registry=registry)
        self._read = Counter("citewell_tokens_read", "Tokens that the language model read, without those in its cache", registry=registry)
        self._cached = Counter("citewell_tokens_cached", "Tokens that stood in the language model's cache", registry=registry)
        self._written = Counter("citewell_tokens_written", "Tokens that the language model wrote", registry=registry)
        self._going_on = Gauge("citewell_questions_in_progress", "Questions that are being answered", ["door"], registry=registry)
        for door in DOORS:  # so that each line is there from the start, as a rate needs it
            self._going_on.labels(door)
            for outcome in OUTCOMES:
                self._questions.labels(door, outcome)
        registry.register(_State(assistant))

    def counted(self, door: Door, events: Iterator[Event]) -> Iterator[Event]:
        """The events of one question as they come; how it ends is counted. Has a close() that reaches the question from any thread."""
        return _Counting(events, self._following(door, events))

    def _following(self, door: Door, events: Iterator[Event]) -> Generator[Event, None, None]:
        outcome = "left"
        with self._going_on.labels(door).track_inprogress():
            try:
                for event in events:
                    if isinstance(event, Answer):
                        outcome = "asked_back" if event.asks_back else "refused" if event.abstained else "answered"
                        self._measure(event)
                    yield event
            except (InvalidQuestion, KeyError):
                outcome = "rejected"
                raise
            except Exception:
                outcome = "failed"
                raise
            finally:
                # A question counts once, however it ends.
                self._questions.labels(door, outcome).inc()
                with suppress(ValueError):
                    getattr(events, "close", lambda: None)()

    def _measure(self, answer: Answer) -> None:
        timings, usage = answer.timings, answer.usage
        self._evidence.observe(timings.evidence_ms / 1000)
        if timings.first_token_ms is not None:
            self._first.observe(timings.first_token_ms / 1000)
        self._total.observe(timings.total_ms / 1000)
        self._read.inc(usage.prompt_tokens)
        self._cached.inc(usage.cached_tokens)
        self._written.inc(usage.completion_tokens)

    def text(self) -> bytes:
        """Everything counted, in Prometheus's text format."""
        return generate_latest(self._registry)


class _Counting(Iterator[Event]):
    """Events with their counting around them. A generator alone could not be closed while another thread waits in it, and the model would go on."""

    def __init__(self, events: Iterator[Event], counting: Generator[Event, None, None]) -> None:
        self._events, self._counting = events, counting

    def __next__(self) -> Event:
        return next(self._counting)

    def close(self) -> None:
        for made in (self._events, self._counting):
            with suppress(ValueError):  # another thread is in it, and is being woken
                getattr(made, "close", lambda: None)()


class _State:
    """What is as it is at the moment of asking: documents, passages, the model."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant

    def describe(self) -> list[Metric]:
        """Nothing: else the registry would collect once when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each page of metrics."""
        state = GaugeMetricFamily("citewell_model_state", "1 for the state that the language model is in", labels=["state"])
        now = self._assistant.model_status().state
        for name in MODEL_STATES:
            state.add_metric([name], float(name == now))
        yield state
        with suppress(CitewellError):  # a store that is closed or broken has no numbers; /readyz says so
            store = self._assistant.store
            yield GaugeMetricFamily("citewell_documents", "Documents in the store", float(store.document_count()))
            yield GaugeMetricFamily("citewell_documents_rejected", "Files that could not become documents", float(store.rejection_count()))
            yield GaugeMetricFamily("citewell_passages", "Passages in the store", float(store.passage_count()))
