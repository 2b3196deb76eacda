"""Asks question sets and keeps every row: a run that was stopped goes on where it was, and a reply that is known is not asked for again.

A run's folder is `runs/NAME` in the evaluation folder: `rows.jsonl` grows as questions are answered, `run.json` is written at the end. Beside `runs/`
lie `stores/`, the indexed corpora, and `replies.sqlite`, what models said.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from index.embed import Embedder, open_embedder
from index.errors import CitewellError, StoreInUse
from index.split import split
from index.store import Store
from rag import __version__, weights
from rag.assistant import Assistant, configured_model
from rag.evaluation import attacks, measures, ranking, rows
from rag.evaluation.cases import cases_file
from rag.evaluation.measures import Row
from rag.evaluation.replies import RememberingModel
from rag.evaluation.sets import Entry, QuestionSet, lay_out, part_of, read_set, same_document
from rag.model import EmbeddedModel, LanguageModel, ModelStatus
from rag.settings import SEEDS, Settings

MINE = "mine"
PARTS = ("tune", "report", "all")

Progress = Callable[[int, int, str], None]

_HOME = Path(__file__).resolve().parents[2]
_SHAPES_THE_STORE = ("split.py", "read.py", "sync.py", "schema.py")
_LIBRARIES = ("chromadb", "ir-measures", "numpy", "scikit-learn", "scipy", "sentence-transformers", "torch", "xllamacpp")


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked, and how. `documents` is for sets without a corpus of their own; `given` narrows each question to its gold documents.

    `part` is a half or all; of it, `limit` questions of each set are chosen with `seed`. `retrieval`: nothing is answered.
    """

    sets: tuple[str, ...]
    documents: Path | None = None
    part: str = "all"
    limit: int | None = None
    seed: int = 0
    retrieval: bool = False
    given: bool = False


def evaluate(options: Options, settings: Settings, out: Path, progress: Progress = lambda done, total, what: None) -> tuple[dict[str, Any], Path]:
    """Runs the sets and returns the run, as it stands in its run.json, with its folder. Raises CitewellError, and what opening a store raises."""
    if options.part not in PARTS:
        raise CitewellError(f"There is no part '{options.part}'. Choose {', '.join(PARTS)}.")
    given = [_own_cases(settings) if name == MINE else read_set(Path(name).expanduser()) for name in options.sets]
    if len({one.name for one in given}) < len(given):
        raise CitewellError("Two of the sets have the same name. Evaluate them one after the other.")
    model, status = (None, ModelStatus("none", "", "none")) if options.retrieval else _model(settings)
    embedder = open_embedder(settings.embedder)
    record = _record(options, settings, given, embedder)
    folder = _folder(out / "runs", record)
    remembering = RememberingModel(model, _identity(settings), out / "replies.sqlite") if model else None
    before = _rows_of(folder / "rows.jsonl")
    made: list[dict[str, Any]] = []
    try:
        with (folder / "rows.jsonl").open("a", encoding="utf-8") as file:
            for one in given:
                known = {row["key"]: row for row in before if row["set"] == one.name}
                with _opened(one, options, settings, embedder, remembering, status, out, progress) as (ground, notes):
                    for row in _asked(ground, known, progress):
                        file.write(json.dumps(row) + "\n")
                        file.flush()
                own = list(known.values())
                if failed := sum(bool(row.get("model_failed")) for row in own):
                    notes.append(f"The model failed on {failed} questions; what the documents' own sentences answered instead is counted.")
                made.append({"name": one.name, "notes": notes, **summary(own, options.seed), "rows": own})
    finally:
        if isinstance(model, EmbeddedModel):
            model.close()
        if remembering is not None:
            remembering.close()
    finished = {"run": folder.name, "made": datetime.now(UTC).isoformat(timespec="seconds"), **record, "sets": made}
    text = json.dumps(_plain(finished), ensure_ascii=False, indent=1)
    (folder / "run.json").write_text(text, encoding="utf-8")
    run: dict[str, Any] = json.loads(text)
    return run, folder


def load_run(name: str, out: Path) -> dict[str, Any]:
    """A finished run by its folder, its run.json, or its name. Raises CitewellError where there is none."""
    for path in (Path(name), Path(name) / "run.json", out / "runs" / name / "run.json"):
        if path.is_file():
            try:
                run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                if "sets" in run:
                    return run
            except (ValueError, TypeError):
                pass
            raise CitewellError(f"{path} is no run of `citewell evaluate`. Give a run's folder or its run.json.")
    raise CitewellError(f"There is no finished run '{name}'. Give a run's folder, or one of the names in {out / 'runs'}.")


def summary(made: Sequence[Row], seed: int) -> dict[str, Any]:
    """What the rows of one set come to: measures for each half and for all, by kind, and the curves."""
    halves = {part: [row for row in made if part in ("all", row["half"])] for part in PARTS}
    kinds = sorted({row["kind"] for row in made} - {""})
    return {
        "count": len(made),
        "parts": {part: measures.figures(own, seed) for part, own in halves.items()},
        "kinds": {kind: measures.figures([row for row in made if row["kind"] == kind], seed) for kind in kinds} if len(kinds) > 1 else {},
        "refusal": {part: found for part, own in halves.items() if (found := measures.refusal_curves(own, seed))},
        "verification": {part: found for part, own in halves.items() if (found := measures.verification(own, seed))},
    }


def _asked(ground: rows.Ground, known: dict[str, Row], progress: Progress) -> Iterator[Row]:
    """Makes the rows that are not known yet, and adds them to those that are."""
    clean: dict[str, list[str]] = {}
    todo = list(rows.work(ground, clean))
    for number, (key, make) in enumerate(todo):
        progress(number, len(todo), f"{ground.given_set.name} {key}")
        row = known.get(key)
        if row is None:
            row = {"set": ground.given_set.name, "key": key, **make()}
            row["failed"] = rows.failures(row["scores"])
            known[key] = row
            yield row
        if row.get("clean"):
            clean.setdefault(row["id"], []).append(row["answer"]["text"])


# What is asked


def _own_cases(settings: Settings) -> QuestionSet:
    file = cases_file(settings.data_dir)
    if not file.exists():
        raise CitewellError(
            "There are no cases of your own yet. In the page, press 'Not right?' under an answer that is wrong; it is kept as a case."
        )
    return replace(read_set(file), name=MINE, own=True)


def _model(settings: Settings) -> tuple[LanguageModel | None, ModelStatus]:
    model, status = configured_model(settings)
    if status.state == "fetching":
        weights.fetch(weights.CATALOG[settings.model], settings.models_dir, lambda done, total, where: None)
        model, status = configured_model(settings)
    return model, status


def _identity(settings: Settings) -> str:
    """Which weights, or which server's model, replies are kept under."""
    known = weights.CATALOG.get(settings.model)
    file = Path(settings.model).expanduser()
    what = known.sha256 if known else str(file.stat().st_size) if file.is_file() else settings.model_name
    return f"{settings.model_shown} {what}"


def _record(options: Options, settings: Settings, given: Sequence[QuestionSet], embedder: Embedder) -> dict[str, Any]:
    """What a run must have in common with another to be the same: a run goes on only where all of this is unchanged."""
    code = blake2b(digest_size=8)
    for file in sorted(path for package in ("index", "rag") for path in (_HOME / package).rglob("*.py")):
        code.update(file.read_bytes())
    asked = {**asdict(options), "documents": str(options.documents or ""), "sets": list(options.sets)}
    model = "none" if options.retrieval else settings.model_shown
    return {
        "settings": {"model": model, "model_name": settings.model_name, "embedder": embedder.identity, **asked},
        "digests": {one.name: one.digest for one in given},
        "code": code.hexdigest(),
        "versions": {"citewell": __version__, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _folder(runs: Path, record: Mapping[str, Any]) -> Path:
    """The folder of a run with this record that was stopped before its end, or a new one."""
    text = json.dumps(record, sort_keys=True)
    for started in sorted(runs.glob("*/started.json"), reverse=True):
        if not (started.parent / "run.json").exists() and started.read_text(encoding="utf-8") == text:
            return started.parent
    folder = runs / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{os.urandom(2).hex()}"
    folder.mkdir(parents=True)
    (folder / "started.json").write_text(text, encoding="utf-8")
    return folder


def _rows_of(file: Path) -> list[Row]:
    """The rows that were written; a last one that was cut off is taken away, so that the next begins on a line of its own."""
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.write_bytes(whole)
    return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]


# The documents


@contextmanager
def _opened(
    given: QuestionSet,
    options: Options,
    settings: Settings,
    embedder: Embedder,
    model: RememberingModel | None,
    status: ModelStatus,
    out: Path,
    progress: Progress,
) -> Iterator[tuple[rows.Ground, list[str]]]:
    """A set over its documents, indexed: the user's own store, the set's corpus, the folder that was named, or the seeds. With what to note of it."""
    planting = bool(given.attacks) and not options.retrieval
    questions = part_of(given.questions, options.part, None if planting else options.limit, options.seed)
    planted = attacks.planted(given, questions, options.limit, options.seed) if planting else []
    if planting:
        questions = [question for question in questions if question.id in {case.original.id for case in planted}]
    entries = [*given.corpus, *(case.entry for case in planted)]
    notes = [f"{len(questions)} of {len(given.questions)} questions (part: {options.part}, seed {options.seed})."]
    with Assistant(settings, _store(given, entries, options, settings, embedder, out), embedder, model, status) as assistant:
        ids = _synced(assistant, given, entries, options, progress, notes)
        embedder.load()
        if assistant.store.wait_for_index(600) != "ready":
            notes.append("The vector index was not ready: passages were found by words alone.")
        ranked = any(rows.is_ranked(question, given, options.given) for question in questions)
        chance = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
        others = [entry.text for entry in chance.sample(entries, min(30, len(entries)))]
        plain = _plain_rankers(assistant, ids) if ranked else None
        yield (
            rows.Ground(
                assistant, given, questions, planted, ids, others, plain, model, options.retrieval, options.given, options.seed
            ),
            notes,
        )  # fmt: skip
    if planting:
        notes += [f"{len(planted)} planted instructions, one place each, chosen with seed {options.seed}.", *attacks.HOW]
        notes += [] if model else ["Without a language model there is no undefended answer to compare with."]


def _store(given: QuestionSet, entries: Sequence[Entry], options: Options, settings: Settings, embedder: Embedder, out: Path) -> Store:
    """The user's own store, or one for these documents, this embedder and the code that cuts documents into passages."""
    if given.own:
        try:
            return Store(settings.data_dir, embedder.identity)
        except StoreInUse as error:
            where = f", at {error.address}," if error.address else ""
            raise CitewellError(f"A Citewell that is running{where} uses your store. Stop it, then run `citewell evaluate mine` again.") from error
    key = blake2b(embedder.identity.encode(), digest_size=6)
    for name in _SHAPES_THE_STORE:
        key.update((_HOME / "index" / name).read_bytes())
    documents = str((options.documents or SEEDS).absolute())
    key.update(repr([(entry.id, entry.title, entry.text) for entry in entries] or documents).encode("utf-8", "replace"))
    return Store(out / "stores" / f"{given.name if entries else Path(documents).name}-{key.hexdigest()}", embedder.identity)


def _synced(
    assistant: Assistant, given: QuestionSet, entries: Sequence[Entry], options: Options, progress: Progress, notes: list[str]
) -> dict[str, str]:
    """Indexes a set's documents; returns what the set calls each source: the corpus tells exactly, in a folder it is the gold name that fits."""
    if given.own:
        return {document.source: document.source for document in assistant.store.documents()}
    folder, ids = options.documents or SEEDS, dict[str, str]()
    if entries:
        folder = assistant.store.folder.with_name(f"{assistant.store.folder.name}-documents")
        # Gold spans count characters: the text stays as it is there.
        ids = lay_out(entries, folder, titled=not any(question.spans for question in given.questions))
    report = assistant.sync(folder, lambda done, total, what: progress(done, total, f"indexing {what}"))
    if report.rejected:
        notes.append(f"{len(report.rejected)} documents could not be read: {', '.join(sorted(report.rejected)[:5])}.")
    sources = [document.source for document in assistant.store.documents()]
    if entries:
        ids = {source: ids[source] for source in sources if source in ids}  # what was rejected cannot be asked
    else:
        golds = sorted({gold for question in given.questions for gold in (*question.relevant, *(span.document for span in question.spans))})
        ids = {source: next((gold for gold in golds if same_document(source, gold)), source) for source in sources}
    return ids


def _plain_rankers(assistant: Assistant, ids: Mapping[str, str]) -> ranking.PlainRankers:
    """The plain rankers over all passages of the store; their embeddings are kept beside it."""
    store = assistant.store
    passages = [passage for info in store.documents() for passage in split(store.document(info.id))]
    texts = [passage.text for passage in passages]
    digest = blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=6).hexdigest()
    file = store.folder.with_name(f"{store.folder.name}-plain-{digest}.npy")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        vectors = assistant.embedder.embed(texts)
        with file.with_suffix(".new").open("wb") as written:
            np.save(written, vectors)
        file.with_suffix(".new").replace(file)
    return ranking.PlainRankers(texts, [ids[passage.source] for passage in passages], np.load(file, allow_pickle=False))


def _plain(value: Any) -> Any:
    """The same as plain JSON: figures as objects, what is not a number as null."""
    if isinstance(value, measures.Figure):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
