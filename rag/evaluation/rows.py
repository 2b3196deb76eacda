"""One question of a set over its documents: what search ranks, what is answered, what is cited; a row with all that the report shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from index.errors import CitewellError
from index.types import Hit, Span
from rag.assistant import Assistant
from rag.evaluation import attacks, measures, ranking
from rag.evaluation.measures import Row
from rag.evaluation.replies import RememberingModel
from rag.evaluation.sets import Question, QuestionSet
from rag.types import Answer

DEEP = 100
"""Hits that are asked for where documents are ranked: a document can have many passages."""

GOLD = ("answers", "wrong_answers", "must", "must_not", "relevant", "support", "given")

WRONG = {
    "spans that are not their quote": "a span is not its quote",
    "bare sentences": "a sentence is neither cited nor marked",
    "planted instruction followed": "the planted instruction was followed",
    "refusal recall": "answered, although the documents do not",
    "answer rate": "refused, although the documents answer it",
    "asked back when underspecified": "did not ask back",
    "asked back although specified": "asked back without need",
    "answered right": "not right",
    "right and rightly cited": "not right with a gold document cited",
    "accuracy on clean documents": "not right",
    "exact match": "not exactly the gold answers",
    "disagreement flagged": "the disagreement was not told",
    "disagreement flagged where there is none": "a disagreement was told that is none",
    "cited sentences right": "a cited sentence is not a gold one",
    "gold sentences cited": "a gold sentence was not cited",
    "document recall@5": "a gold document is not among the first five",
    "character recall@5": "gold characters are not in the first five passages",
    "still the answer that was found wrong": "still the answer that was found wrong",
}
"""The measures that a question can fail, and how that is told."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A set over its documents: `ids` leads from a document's source to the id that the set calls it by; `others` are texts of some documents.

    `retrieval`: nothing is answered. `given`: each question is asked of its gold documents. `model` is None where there is none.
    """

    assistant: Assistant
    given_set: QuestionSet
    questions: Sequence[Question]
    planted: Sequence[attacks.Planted]
    ids: Mapping[str, str]
    others: Sequence[str]
    plain: ranking.PlainRankers | None
    model: RememberingModel | None
    retrieval: bool
    given: bool
    seed: int

    def sources(self, wanted: Iterable[str]) -> list[str]:
        """The sources of the documents that the set calls so."""
        names = set(wanted)
        return [source for source, identifier in self.ids.items() if identifier in names]

    def name(self, source: str) -> str:
        """What the set calls a document."""
        return self.ids.get(source, source)


def is_ranked(question: Question, given_set: QuestionSet, given: bool) -> bool:
    """Whether documents are ranked for a question: gold ones are named, and it is asked of all documents."""
    narrowed = question.documents or given_set.attacks or given or question.group in given_set.groups
    return bool(question.relevant) and not question.spans and not narrowed


def work(ground: Ground, clean: Mapping[str, list[str]]) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The rows to be made, each with its key. `clean` are the answers to clean documents by question, which must be made before those to planted ones."""
    if not ground.planted:
        for question in ground.questions:
            yield question.id, lambda question=question: row_of(ground, question)  # type: ignore[misc]
        return
    modes = (True, False) if ground.model else (True,)
    for question in ground.questions:
        for defended in modes:
            yield f"{question.id} {mode(defended)}", lambda question=question, defended=defended: clean_row(ground, question, defended)  # type: ignore[misc]
    for case in ground.planted:
        for defended in modes:
            yield f"{case.question.id} {mode(defended)}", lambda case=case, defended=defended: attacked_row(ground, case, defended, clean)  # type: ignore[misc]


def failures(scores: Mapping[str, Any]) -> list[str]:
    """What went wrong on a question, in words; the rankers and answers that Citewell is compared with cannot fail it."""
    found = []
    for name, score in scores.items():
        measure, _, who = name.partition(" · ")
        if measure in WRONG and who in ("", "defended"):
            part, whole = score if isinstance(score, tuple | list) else (score, 1.0)
            if (part > 0 if measures.kind_of(name).better == "low" else part < whole) and WRONG[measure] not in found:
                found.append(WRONG[measure])
    return found


def row_of(ground: Ground, question: Question) -> Row:
    """One question of an ordinary set."""
    assistant = ground.assistant
    scores: dict[str, Any] = {}
    more: Row = {}
    if question.spans:
        hits = assistant.search(question.question, question.history, limit=5)
        scores |= measures.span_scores(question, [(ground.name(hit.passage.source), hit.passage.span) for hit in hits])
        more["found"] = [_shown(ground, hit) for hit in hits]
    elif is_ranked(question, ground.given_set, ground.given):
        scores |= _ranked(ground, question, more)
    if question.support:
        hits = assistant.search(question.question, limit=DEEP, documents=ground.sources(question.relevant))
        texts = {hit.passage.document_id: assistant.store.text(hit.passage.document_id) for hit in hits}
        more["claims"] = measures.claims(question, hits, texts, ground.others, ground.seed)
    if not ground.retrieval:
        answered, told = _answered(ground, question, _narrowed(ground, question))
        scores |= answered
        more |= told
    return _row(question, scores, **more)


def _row(question: Question, scores: Mapping[str, Any], **more: Any) -> Row:
    return {
        "id": question.id,
        "half": question.half,
        "kind": question.sort,
        "question": question.question,
        "history": [asdict(turn) for turn in question.history],
        "answerable": question.answerable,
        "gold": {name: value for name in GOLD if (value := getattr(question, name))},
        "scores": dict(scores),
        **more,
    }


def _shown(ground: Ground, hit: Hit) -> dict[str, str]:
    return {"document": ground.name(hit.passage.source), "title": hit.passage.title, "text": hit.passage.text[:500]}


def _narrowed(ground: Ground, question: Question) -> list[str] | None:
    """The documents a question goes to: those it was asked of, its gold ones where they are given, its group's, or all."""
    if question.documents:
        there = {name for document in ground.assistant.store.documents() for name in (document.id, document.source)}
        gone = [name for name in question.documents if name not in there]
        if gone:
            raise CitewellError(
                f"The case {question.id} was asked of a document that is gone ({gone[0]}). Sync its folder again, or delete the case."
            )
        return list(question.documents)
    if (ground.given or ground.given_set.attacks) and question.relevant:
        return ground.sources(question.relevant)
    groups = ground.given_set.groups
    return ground.sources(groups[question.group]) if question.group in groups else None


def _ranked(ground: Ground, question: Question, more: Row) -> dict[str, Any]:
    """The worth of search's ranking beside the plain rankers' and, for a follow-up, beside the last turn's alone."""
    assert ground.plain is not None, "there are rankers where documents are ranked"

    def documents(hits: Sequence[Hit]) -> list[str]:
        return ranking.documents_of([ground.name(hit.passage.source) for hit in hits])

    assistant = ground.assistant
    hits = assistant.search(question.question, question.history, limit=DEEP)
    more["found"] = [_shown(ground, hit) for hit in hits[:5]]
    own = ranking.worth(documents(hits), question.relevant)
    scores: dict[str, Any] = dict(own)
    rankings = dict(ground.plain.rank(question.question, assistant.embedder.embed([question.question])[0]))
    if question.history:
        rankings["last turn alone"] = documents(assistant.search(question.question, limit=DEEP))
    for name, ranked in rankings.items():
        worth = ranking.worth(ranked, question.relevant)
        scores |= {f"{measure} · {name}": value for measure, value in worth.items()}
        if name in ("last turn alone", "their fusion"):
            scores[f"points of recall@5 above · {name}"] = own["document recall@5"] - worth["document recall@5"]
    return scores


def _answered(ground: Ground, question: Question, documents: Sequence[str] | None) -> tuple[dict[str, Any], Row]:
    """An answer's scores, and what the report shows of it. Times count only where the model spoke itself and had been loaded before."""
    store, model = ground.assistant.store, ground.model
    warm, remembered, failed = (model.ready, model.remembered, model.failed) if model else (True, 0, 0)
    answer = ground.assistant.ask(question.question, question.history, documents)
    texts = {c.document_id: store.text(c.document_id) for c in answer.citations}
    wrong = sum(texts[c.document_id][c.start : c.end] != c.quote for c in answer.citations)
    cited = [ground.name(c.source) for c in answer.citations]
    scores = measures.answer_scores(question, answer, cited, [ground.name(hit.passage.source) for hit in answer.evidence])
    if question.support and question.answerable is True:
        scores |= _support(ground, question, answer, cited)
    scores |= measures.form_scores(answer, wrong)
    times = {"evidence": answer.timings.evidence_ms, "first token": answer.timings.first_token_ms, "whole answer": answer.timings.total_ms}
    if warm and (model is None or model.remembered == remembered):
        scores |= {name: value for name, value in times.items() if value is not None}
    told = {
        "answer": {
            "text": answer.text,
            "abstained": answer.abstained,
            "asks_back": answer.asks_back,
            "citations": [{"number": c.number, "document": document, "quote": c.quote} for c, document in zip(answer.citations, cited, strict=True)],
            "unsupported": list(answer.unsupported),
            "evidence": [_shown(ground, hit) for hit in answer.evidence],
            "searched": answer.standalone_question,
            "model": answer.model,
            "notices": list(answer.notices),
        },
        "confidence": answer.confidence,
        "times": times,
        "remembered": model is not None and model.remembered > remembered,
        "model_failed": model is not None and model.failed > failed,
    }
    return scores, told


def _support(ground: Ground, question: Question, answer: Answer, cited: Sequence[str]) -> dict[str, Any]:
    store = ground.assistant.store
    gold = next(info.id for info in store.documents() if ground.name(info.source) == question.relevant[0])
    inside = [Span(c.start, c.end) for c in answer.citations if c.document_id == gold]
    return measures.support_scores(question.support, store.text(gold), inside, len(cited) - len(inside), not answer.abstained)


# Planted instructions


def mode(defended: bool) -> str:
    """What stands behind a measure's name."""
    return "defended" if defended else "undefended"


def clean_row(ground: Ground, question: Question, defended: bool) -> Row:
    """A question of its own document, as it is."""
    scores, said = _said(ground, question, defended)
    right = measures.is_accurate(question, said["answer"]["text"], said["answer"]["abstained"])
    return _row(question, {f"accuracy on clean documents · {mode(defended)}": float(right), **scores}, **said, clean=True)


def attacked_row(ground: Ground, case: attacks.Planted, defended: bool, clean: Mapping[str, list[str]]) -> Row:
    """The question of its own document with an instruction planted in it."""
    scores, said = _said(ground, case.question, defended)
    text, abstained = said["answer"]["text"], said["answer"]["abstained"]
    known = [case.clean_text, case.original.question, *clean[case.original.id]]
    was = attacks.followed(case.category, case.instruction, text, abstained, known)
    own = {
        f"planted instruction followed · {mode(defended)}": float(was),
        f"accuracy under attack · {mode(defended)}": float(measures.is_accurate(case.original, text, abstained)),
    }
    planted = {"instruction": case.instruction, "place": case.place}
    return {**_row(case.question, {**own, **scores}, **said, planted=planted), "half": case.original.half}


def _said(ground: Ground, question: Question, defended: bool) -> tuple[dict[str, Any], Row]:
    """The answer of the whole product with what holds of every answer, or what the bare model says to the same passages."""
    documents = ground.sources(question.relevant)
    if defended:
        scores, said = _answered(ground, question, documents)
        return {name: score for name, score in scores.items() if measures.kind_of(name).unit in ("number", "ms")}, said
    text, abstained = attacks.undefended(ground.assistant, question.question, documents)
    return {}, {"answer": {"text": text, "abstained": abstained}}
