"""Each mechanism of answering switched off in turn, on public question sets: one table.

usage: python tests/bench_ablations.py SET[:LIMIT[:SEED]]... [--model URL] [--model-name NAME] [--documents FOLDER] [--leave-out WORD]... --out FOLDER

The gold document is given for clapnq, as its figures are counted. Replies are kept in the folder of `citewell evaluate --out`, so that only what a mechanism
changes in a prompt is asked of the model. What retrieval's mechanisms bring is measured without a model: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from index.embed import open_embedder
from rag import answer, cite, decide
from rag.evaluation import measures, rows, run
from rag.evaluation.replies import RememberingModel
from rag.evaluation.sets import read_set
from rag.settings import Settings

SHOWN = (
    "answered right",
    "answer rate",
    "refusal recall",
    "refusal precision",
    "cited sentences right",
    "gold sentences cited",
    "exact match",
    "disagreement flagged",
    "disagreement flagged where there is none",
    "unsupported sentences",
    "accuracy on clean documents · defended",
    "planted instruction followed · defended",
)

OFF: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "everything on": [],
    "no gate: whatever is found is drafted from": [(decide, "confidence", lambda stated, similarity, uncovered: 1.0)],
    "the model's probability alone decides": [(decide, "confidence", lambda stated, similarity, uncovered: stated)],
    "what is not borne out is given too, and documents are not compared": [
        (decide, "worth_giving", lambda leads, question, borne_out: True),
        (answer, "_compared", lambda question, verified, *_: (verified, ())),
    ],
    "no words of the documents in a draft's place": [(answer, "_in_their_words", lambda *_: None)],
    "questions for a number may get none": [(decide, "lacks_quantity", lambda question, reply: False)],
    "false premises are refused, bylines are left to the model": [
        (answer, "_set_right", lambda *_: None),
        (answer.byline, "written_by", lambda *_: None),
    ],
    "documents are not compared": [(answer, "_compared", lambda question, verified, *_: (verified, ()))],
    "spans are not cut down": [(cite, "_shrunk", lambda sentence, parts, covers: parts)],
    "contradictions are not looked for": [(cite, "_contradiction", lambda *_: 0.0)],
    "pieces need not hang together": [(cite, "_hangs_together", lambda *_: True)],
    "what resembles nothing is kept": [(cite, "_is_foreign", lambda *_: False)],
}


@contextmanager
def switched_off(name: str) -> Iterator[None]:
    """Answers without one mechanism."""
    with ExitStack() as stack:
        for module, function, instead in OFF[name]:
            stack.enter_context(patch.object(module, function, instead))
        yield


def made(ground: rows.Ground) -> list[dict[str, Any]]:
    """Rows of answers; what needs no answer (ranking, verification of gold sentences) is left out."""
    if ground.planted:
        clean: dict[str, list[str]] = {}
        found = []
        for key, make in rows.work(ground, clean):
            if key.endswith(rows.mode(True)):
                row = make()
                if row.get("clean"):
                    clean.setdefault(row["id"], []).append(row["answer"]["text"])
                found.append(row)
        return found
    found = []
    for question in ground.questions:
        scores, _ = rows._answered(ground, question, rows._narrowed(ground, question))
        found.append({"half": question.half, "answerable": question.answerable, "scores": scores})
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-name", default="")
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--leave-out", action="append", default=[], metavar="WORD", help="mechanisms with this word in their line stay on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = Settings(model=options.model, model_name=options.model_name)
    model, status = run._model(settings)
    assert model is not None, "ablations need a language model"
    embedder = open_embedder(settings.embedder)
    remembering = RememberingModel(model, run._identity(settings), options.out / "replies.sqlite")
    for wanted in options.sets:
        path, limit, seed = (*wanted.split(":"), "", "")[:3]
        given = read_set(Path(path))
        asked = run.Options((path,), options.documents, limit=int(limit) if limit else None, seed=int(seed or 0), given=given.name == "clapnq")
        with run._opened(given, asked, settings, embedder, remembering, status, options.out, lambda *_: None) as (ground, _):
            header = None
            for name in (name for name in OFF if not any(word in name for word in options.leave_out)):
                with switched_off(name):
                    figures = measures.figures(made(ground), asked.seed)
                if header is None:
                    header = [measure for measure in SHOWN if measure in figures]
                    print(
                        f"\n{given.name}, {len(ground.planted) or len(ground.questions)} questions\n\n| | {' | '.join(header)} |\n|---|{'--:|' * len(header)}"
                    )
                shown = (figures.get(measure) for measure in header)
                print(f"| {name} | {' | '.join('' if one is None else f'{one.value:.3g}' for one in shown)} |", flush=True)
    remembering.close()


if __name__ == "__main__":
    main()
