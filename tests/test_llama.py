"""Tests of rag.llama: passages and citations as LlamaIndex's nodes with exact offsets, awaited for real, and within a pipeline of LlamaIndex's own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant
from doors import QUESTION, timeless

from index.errors import InvalidQuestion
from index.store import Store
from rag.assistant import Assistant
from rag.model import Finished
from rag.prompt import Message

pytestmark = pytest.mark.usefixtures("fast_probes")


def test_the_retriever_finds_what_search_finds_with_exact_offsets(assistant: Assistant) -> None:
    found = assistant.as_retriever(limit=2).retrieve(QUESTION)
    hits = assistant.search(QUESTION, limit=2)
    assert [(node.node_id, node.score) for node in found] == [(hit.passage.id, hit.score) for hit in hits]
    assert len(found) == 2
    for node, hit in zip(found, hits, strict=True):
        text = assistant.store.text(node.metadata["document_id"])
        assert text[node.node.start_char_idx : node.node.end_char_idx] == node.node.text == hit.passage.text
        assert (node.metadata["source"], node.metadata["title"]) == (hit.passage.source, hit.passage.title)
        assert node.node.ref_doc_id == hit.passage.document_id


def test_the_query_engine_answers_with_a_node_for_each_citation(assistant: Assistant) -> None:
    response = assistant.as_query_engine().query(QUESTION)
    answer = assistant.ask(QUESTION)
    assert str(response) == answer.text == "The lander Apollo was built by Grumman. [1]"
    assert timeless(response.metadata["answer"]) == timeless(answer.to_dict())
    ((source, citation),) = zip(response.source_nodes, answer.citations, strict=True)
    assert (source.node.text, source.node.start_char_idx, source.node.end_char_idx) == (citation.quote, citation.start, citation.end)
    assert assistant.store.text(citation.document_id)[source.node.start_char_idx : source.node.end_char_idx] == source.node.text
    assert (source.metadata["number"], source.metadata["page"], source.score) == (1, None, None)


def test_both_can_be_narrowed(assistant: Assistant) -> None:
    assert {node.metadata["source"] for node in assistant.as_retriever(documents=["tea.txt"]).retrieve(QUESTION)} == {"tea.txt"}
    evidence = assistant.as_query_engine(documents=["tea.txt"]).query(QUESTION).metadata["answer"]["evidence"]
    assert {hit["passage"]["source"] for hit in evidence} <= {"tea.txt"}
    with pytest.raises(KeyError):
        assistant.as_retriever(documents=["gone.md"]).retrieve(QUESTION)
    with pytest.raises(InvalidQuestion):
        assistant.as_query_engine().query("")


class Slow(FakeModel):
    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        time.sleep(0.2)
        yield from super().stream(messages, max_tokens)


def test_awaiting_gives_the_same_and_leaves_the_event_loop_free(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    assistant = make_assistant(store, embedder, Slow("The lander Apollo was built by Grumman."))
    assistant.sync(folder)
    seen: list[Any] = []

    async def run() -> None:
        asyncio.get_running_loop().call_later(0.02, seen.append, "loop")
        seen.append(await assistant.as_query_engine().aquery(QUESTION))
        seen.append(await assistant.as_retriever().aretrieve(QUESTION))

    asyncio.run(run())
    loop, response, nodes = seen
    assert loop == "loop"
    assert timeless(response.metadata["answer"]) == timeless(assistant.ask(QUESTION).to_dict())
    assert [node.node_id for node in nodes] == [hit.passage.id for hit in assistant.search(QUESTION)]


def test_it_stands_where_llamaindex_takes_a_retriever(assistant: Assistant) -> None:
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine

    engine = RetrieverQueryEngine.from_args(assistant.as_retriever(limit=1), llm=MockLLM())
    response = engine.query(QUESTION)
    (source,) = response.source_nodes
    assert "Grumman" in source.node.text
    assert "title: The Apollo lander" in str(response), "a model reads the title"
    assert "similarity" not in str(response)


def test_llamaindex_is_imported_only_when_it_is_asked_for() -> None:
    code = "import sys, rag.assistant; assert not any(name.startswith('llama_index') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
