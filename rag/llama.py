"""The assistant as LlamaIndex's retriever and query engine, for whoever builds with that. Imported only when one is asked for: LlamaIndex takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from index.types import Hit
from rag.awaitable import in_thread
from rag.types import Answer, Citation

if TYPE_CHECKING:
    from rag.assistant import Assistant

LIMIT = 5
"""How many passages are found where nobody says how many."""


class CitewellRetriever(BaseRetriever):  # type: ignore[misc]  # LlamaIndex's types are not followed
    """The assistant's search: passages as nodes, whose `start_char_idx` and `end_char_idx` count in the document's stored text."""

    def __init__(self, assistant: Assistant, limit: int = LIMIT, documents: Sequence[str] | None = None) -> None:
        super().__init__()
        self._assistant, self._limit, self._documents = assistant, limit, documents

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _passages(self._assistant, query_bundle, self._limit, self._documents)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(lambda: _passages(self._assistant, query_bundle, self._limit, self._documents))


class CitewellQueryEngine(BaseQueryEngine):  # type: ignore[misc]
    """The assistant's answers: the text, a source node for each citation, and `metadata["answer"]`, which is Answer.to_dict()."""

    def __init__(self, assistant: Assistant, documents: Sequence[str] | None = None) -> None:
        super().__init__(None)
        self._assistant, self._documents = assistant, documents

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Response:
        return _response(self._assistant.ask(query_bundle.query_str, documents=self._documents))

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        return _response(await self._assistant.aask(query_bundle.query_str, documents=self._documents))

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The passages that search finds, for engines that put several together."""
        return _passages(self._assistant, query_bundle, LIMIT, self._documents)


def _passages(assistant: Assistant, query: QueryBundle, limit: int, documents: Sequence[str] | None) -> list[NodeWithScore]:
    return [_of_hit(hit) for hit in assistant.search(query.query_str, limit=limit, documents=documents)]


def _response(answer: Answer) -> Response:
    return Response(answer.text, [_of_citation(citation) for citation in answer.citations], {"answer": answer.to_dict()})


def _of_hit(hit: Hit) -> NodeWithScore:
    passage = hit.passage
    more = {"heading": passage.heading, "pages": [list(page) for page in passage.pages], "similarity": hit.similarity}
    return NodeWithScore(
        node=_node(passage.id, passage.document_id, passage.text, passage.span.start, passage.span.end, passage, more), score=hit.score
    )


def _of_citation(citation: Citation) -> NodeWithScore:
    # A citation is verified or is none: there is no score between.
    name = f"{citation.document_id}:{citation.start}-{citation.end}"
    more = {"number": citation.number, "page": citation.page}
    return NodeWithScore(node=_node(name, citation.document_id, citation.quote, citation.start, citation.end, citation, more), score=None)


def _node(name: str, document_id: str, text: str, start: int, end: int, of: Any, more: dict[str, Any]) -> TextNode:
    metadata = {"document_id": document_id, "source": of.source, "title": of.title, "start": start, "end": end, **more}
    inner = [key for key in metadata if key not in ("title", "source")]
    return TextNode(
        id_=name,
        text=text,
        start_char_idx=start,
        end_char_idx=end,
        metadata=metadata,
        # What another's model or embedder reads of a node: the title and the source say something there, offsets do not.
        excluded_embed_metadata_keys=inner,
        excluded_llm_metadata_keys=inner,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document_id)},
    )
