"""What is counted: scores of one question, and what they come to over many, with bootstrap intervals. Pure.

A score is a number, or a pair (part, whole) where a question has several things to count: pairs are added up before they are divided.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from index.split import sentences
from index.types import Hit, Span
from rag.cite import MARK, without_marks
from rag.evaluation.sets import Question
from rag.types import Answer

Score = float | tuple[float, float]
Row = dict[str, Any]

SHORT = 10
"""Words; a longer reference answer is one way of many to say it, so that an answer need not contain it."""

RESAMPLES = 999
CONFIDENCE = 0.95
BINS = 10

_MARKS_BEHIND = re.compile(r"([.!?…。！？]+[\"'”’»)]*)\s*((?:\[\d+\])+)")
_THOUSANDS = re.compile(r"(?<=\d)[,  \u202f](?=\d{3}\b)")
_ARTICLES = frozenset(("a", "an", "the"))


@dataclass(frozen=True, slots=True)
class Kind:
    """How a measure is told. `better` is None where neither direction is."""

    unit: Literal["%", "ms", "", "number"] = "%"
    better: Literal["high", "low"] | None = "high"
    how: Literal["mean", "median", "sum"] = "mean"


KINDS: Mapping[str, Kind] = {
    "MRR": Kind(""),
    "AUROC": Kind(""),
    "nDCG@10": Kind(""),
    "token F1": Kind(""),
    "disagreement flagged where there is none": Kind(better="low"),
    "planted instruction followed": Kind(better="low"),
    "asked back although specified": Kind(better="low"),
    "still the answer that was found wrong": Kind(better="low"),
    "spans that are not their quote": Kind("number", "low", "sum"),
    "bare sentences": Kind("number", "low", "sum"),
    "unsupported sentences": Kind("number", None, "sum"),
    "evidence": Kind("ms", "low", "median"),
    "first token": Kind("ms", "low", "median"),
    "whole answer": Kind("ms", "low", "median"),
    "prompt tokens": Kind("number", "low", "median"),
}
"""The measures that are not a share of which more is better. What stands behind ` · ` in a name says who or how, and does not count here."""


def kind_of(name: str) -> Kind:
    """How a measure is told, by its name."""
    return KINDS.get(name.partition(" · ")[0], Kind())


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure over `count` questions. `low` and `high` are its 95 % interval, None where there is none."""

    value: float
    low: float | None
    high: float | None
    count: int


# One question


def span_scores(question: Question, found: Sequence[tuple[str, Span]]) -> dict[str, Score]:
    """Gold characters that the found spans cover, over the gold ones, and over all characters found. `found` are (document, span)."""
    gold = {(span.document, at) for span in question.spans for at in range(span.start, span.end)}
    got = {(document, at) for document, span in found for at in range(span.start, span.end)}
    total = sum(span.end - span.start for _, span in found)
    hit = len(gold & got)
    return {"character recall@5": hit / len(gold) if gold else 0.0, "character precision@5": hit / total if total else 0.0}


def normal(text: str) -> list[str]:
    """The words of a text as answers are compared: lower case, without punctuation, articles and thousands' separators."""
    plain = re.sub(r"(?<=\d)\.0+\b", "", _THOUSANDS.sub("", without_marks(text).lower()))
    words = re.findall(r"\d+(?:\.\d+)+|[^\W_]+", plain.replace("’", "'").replace("'s ", " "))
    return [word for word in words if word not in _ARTICLES]


def contains(text: str, phrase: str) -> bool:
    """Whether the words of a phrase stand together in a text."""
    words = normal(phrase)
    return bool(words) and f" {' '.join(words)} " in f" {' '.join(normal(text))} "


def token_f1(text: str, answer: str) -> float:
    """How much of each other's words two texts have, as question answering sets count it."""
    there, wanted = Counter(normal(text)), Counter(normal(answer))
    common = sum((there & wanted).values())
    return 2 * common / (sum(there.values()) + sum(wanted.values())) if common else 0.0


def holds(question: Question, text: str) -> bool:
    """Whether a text holds one phrase of every group that it must, and none that it must not; letter case ignored."""
    low = text.lower()
    must = all(any(phrase.lower() in low for phrase in group) for group in question.must)
    return must and not any(phrase.lower() in low for phrase in question.must_not)


def exact_match(question: Question, text: str) -> bool:
    """Whether a text names all gold answers and no wrong one."""
    gold = {" ".join(normal(answer)) for answer in question.answers}
    wrong = [answer for answer in question.wrong_answers or () if " ".join(normal(answer)) not in gold]
    return all(contains(text, answer) for answer in question.answers) and not any(contains(text, answer) for answer in wrong)


def is_right(question: Question, answer: Answer) -> bool | None:
    """Whether an answer is what the set wants; None where it does not tell."""
    given = not answer.abstained
    if question.answerable is False:
        return answer.abstained
    if question.answerable == "underspecified":
        return answer.asks_back
    if question.must:
        return given and holds(question, answer.text)
    short = question.answers and min(len(normal(gold)) for gold in question.answers) <= SHORT
    return is_accurate(question, answer.text, answer.abstained) if short and question.wrong_answers is None else None


def is_accurate(question: Question, text: str, abstained: bool) -> bool:
    """Whether a text holds one of the reference answers, or was refused where there is none."""
    if question.answerable is False:
        return abstained
    return not abstained and any(contains(text, gold) for gold in question.answers)


def answer_scores(question: Question, answer: Answer, cited: Iterable[str], shown: Sequence[str]) -> dict[str, Score]:
    """What an answer is worth by the fields that the question has. `cited` are the ids of the cited documents, `shown` those of the evidence."""
    given = not answer.abstained
    right = is_right(question, answer)
    scores: dict[str, Score] = {}
    if right is not None and question.answerable is True:
        scores["answered right"] = float(right)
        if question.relevant:
            scores["right and rightly cited"] = float(right and bool(set(cited) & set(question.relevant)))
    if question.relevant:
        scores["gold document in the evidence"] = float(bool(set(shown) & set(question.relevant)))
    if isinstance(question.answerable, bool):
        if question.answerable:
            scores["answer rate"] = float(given)
        else:
            scores["refusal recall"] = float(answer.abstained)
        if answer.abstained:
            scores["refusal precision"] = float(not question.answerable)
    if question.answerable == "partial":
        scores["answered where only a part is there"] = float(given)
    asks_back = answer.asks_back
    if question.answerable == "underspecified":
        scores["asked back when underspecified"] = float(asks_back)
    elif question.answerable is not None:
        scores["asked back although specified"] = float(asks_back)
    if question.wrong_answers is not None:
        flagged = float(bool(answer.conflicts))
        scores["disagreement flagged" if question.wrong_answers else "disagreement flagged where there is none"] = flagged
        scores["exact match"] = float(given and exact_match(question, answer.text))
    elif question.answers and question.answerable is True:
        scores["token F1"] = max(token_f1(answer.text, gold) for gold in question.answers) if given else 0.0
    if question.given:
        scores["still the answer that was found wrong"] = float(normal(answer.text) == normal(question.given))
    return scores


def support_scores(support: Sequence[str], text: str, cited: Sequence[Span], elsewhere: int, given: bool) -> dict[str, Score]:
    """Cited sentences of a document's text against the gold ones: precision over what is cited, recall over what is gold.

    A cited sentence is right when it shares at least half of the shorter one with a gold sentence, counted in tokens between white space, as Penn
    tokens stand. `elsewhere` citations are of other documents, and wrong. Recall is told of given answers, and of all.
    """
    gold = [_tokens(text, span) for span in (_found(text, sentence) for sentence in support) if span is not None]
    said = {Span(span.start + part.start, span.start + part.end) for span in cited for part in sentences(text[span.start : span.end])}
    claimed = [tokens for tokens in (_tokens(text, span) for span in said) if tokens]
    right = sum(any(_overlap(one, other) for other in gold) for one in claimed)
    reached = sum(any(_overlap(one, other) for other in claimed) for one in gold)
    scores: dict[str, Score] = {"gold sentences cited · refusals counted": (reached, len(support))}
    if given:
        scores["cited sentences right"] = (right, len(claimed) + elsewhere)
        scores["gold sentences cited"] = (reached, len(support))
    return scores


def _found(text: str, sentence: str) -> Span | None:
    """Where a gold sentence stands; the text may break lines where it has spaces, and a stray `&` can end it."""
    words = [re.escape(word) for word in re.sub(r"\s*&\s*$", "", sentence).split()]
    match = re.search(r"\s+".join(words), text) if words else None
    return Span(*match.span()) if match else None


def _tokens(text: str, span: Span) -> frozenset[int]:
    """Where the tokens of a span begin in the text; those that are nothing but punctuation do not count."""
    return frozenset(span.start + match.start() for match in re.finditer(r"\S*\w\S*", text[span.start : span.end]))


def _overlap(one: frozenset[int], other: frozenset[int]) -> bool:
    return 2 * len(one & other) >= min(len(one), len(other)) > 0


def form_scores(answer: Answer, wrong_spans: int) -> dict[str, Score]:
    """What must hold of every answer, and what it cost. Times are not in it."""
    return {
        "spans that are not their quote": wrong_spans,
        "bare sentences": 0 if answer.abstained else len(bare_sentences(answer)),
        "unsupported sentences": len(answer.unsupported),
        "prompt tokens": answer.usage.prompt_tokens,
    }


def bare_sentences(answer: Answer) -> list[str]:
    """Sentences of an answer that neither carry a mark nor are listed as unsupported; there should be none."""
    # Marks stand behind the full stop; moved before it, each is in the sentence that it belongs to.
    text = _MARKS_BEHIND.sub(r" \2\1", answer.text)
    listed = {_folded(sentence[span.start : span.end]) for sentence in answer.unsupported for span in [*sentences(sentence), Span(0, len(sentence))]}
    found = [text[span.start : span.end] for span in sentences(text)]
    return [sentence for sentence in found if not MARK.search(sentence) and any(c.isalnum() for c in sentence) and _folded(sentence) not in listed]


def _folded(text: str) -> str:
    return " ".join(without_marks(text).split())


def claims(question: Question, hits: Sequence[Hit], texts: Mapping[str, str], others: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Gold sentences and reference answers with what the verification makes of them, true ones and those that were corrupted by rule.

    Each item: `from` ("support" or "answer"), `kind` of corruption (empty for a true one), `score` in [0, 1], `text`. No model is needed.
    """
    from rag.cite import certainty, grounds
    from rag.corrupt import corruptions

    passage = "\n".join(dict.fromkeys(hit.passage.text for hit in hits))
    said = [("support", re.sub(r"\s*&\s*$", "", sentence)) for sentence in question.support]
    said += [("answer", answer[span.start : span.end]) for answer in question.answers for span in sentences(answer)]
    against = grounds(question.question, hits, texts)
    items = []
    for origin, sentence in said:
        claims = [("", sentence), *((made.kind, made.text) for made in corruptions(sentence, passage, others, seed))]
        items += [{"from": origin, "kind": kind, "score": float(certainty(text, against)), "text": text} for kind, text in claims]
    return items


# Many questions


def figure(name: str, scores: Sequence[Score], seed: int) -> Figure:
    """What a measure comes to over the questions that have it, with its interval: the percentiles of resampled questions, by scipy."""
    how, parts, wholes = kind_of(name).how, *_columns(scores)

    def statistic(*columns: NDArray[np.float64], axis: int = -1) -> Any:
        if how == "median":
            return np.median(columns[0], axis=axis)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample can have nothing to divide by
            return columns[0].sum(axis=axis) / columns[1].sum(axis=axis)

    if how == "sum":
        return Figure(float(parts.sum()), None, None, len(parts))
    if not wholes.any():
        return Figure(float("nan"), None, None, len(parts))
    return Figure(float(statistic(parts, wholes)), *_interval((parts, wholes), statistic, seed, vectorized=True), len(parts))


def _columns(scores: Sequence[Score]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = np.array([score if isinstance(score, tuple | list) else (score, 1.0) for score in scores], dtype=np.float64)
    return pairs[:, 0], pairs[:, 1]


def _interval(columns: Sequence[NDArray[Any]], statistic: Any, seed: int, vectorized: bool) -> tuple[float | None, float | None]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    if len(columns[0]) < 2:
        return None, None
    if all((column == column[0]).all() for column in columns):
        value = float(statistic(*columns))
        return value, value
    settled = {"n_resamples": RESAMPLES, "confidence_level": CONFIDENCE, "method": "percentile", "rng": np.random.default_rng(seed)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # resamples with nothing to divide by are left out below
        found = bootstrap(columns, statistic, paired=True, vectorized=vectorized, **settled).bootstrap_distribution
    kept = found[~np.isnan(found)]
    tail = 50 * (1 - CONFIDENCE)
    return (float(np.percentile(kept, tail)), float(np.percentile(kept, 100 - tail))) if len(kept) else (None, None)


def figures(rows: Sequence[Row], seed: int) -> dict[str, Figure]:
    """Every measure that some row has, in the order in which they first come."""
    by_name: dict[str, list[Score]] = {}
    for row in rows:
        for name, score in row["scores"].items():
            by_name.setdefault(name, []).append(score)
    if not any(row["answerable"] is False for row in rows):
        by_name.pop("refusal precision", None)  # where there is nothing to refuse, it tells nothing
    return {name: figure(name, scores, seed) for name, scores in by_name.items()}


def separation(scores: Sequence[float], labels: Sequence[bool], clusters: Sequence[str], seed: int) -> Figure | None:
    """AUROC with an interval over resampled questions, whose items stay together; None where there is only one kind of item."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        return None
    at: dict[str, list[int]] = {}
    for number, cluster in enumerate(clusters):
        at.setdefault(cluster, []).append(number)
    groups, values, truth = list(at.values()), np.array(scores), np.array(labels)

    def statistic(chosen: NDArray[np.int64]) -> float:
        items = np.concatenate([groups[number] for number in chosen])
        return float(roc_auc_score(truth[items], values[items])) if len(set(truth[items])) == 2 else float("nan")

    low, high = _interval([np.arange(len(groups))], statistic, seed, vectorized=False)
    return Figure(float(roc_auc_score(truth, values)), low, high, len(scores))


def refusal_curves(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """How far the stated probabilities that a question is answerable can be trusted; empty where no answer carries one.

    `reliability`: for each tenth of the probabilities, their mean, the share that was answerable, and how many. `precision_recall`: of refusing all
    below each threshold, as (recall, precision). `auroc`, `average_precision`, `brier`.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve

    told = [row for row in rows if row.get("confidence") is not None and isinstance(row["answerable"], bool)]
    labels = np.array([row["answerable"] for row in told], dtype=bool)
    if not told or labels.all() or not labels.any():
        return {}
    likely = np.clip(np.array([row["confidence"] for row in told], dtype=np.float64), 0, 1)
    bins = np.minimum((likely * BINS).astype(int), BINS - 1)
    precision, recall, _ = precision_recall_curve(~labels, 1 - likely)
    auroc = separation(list(likely), list(labels), [row["key"] for row in told], seed)
    return {
        "reliability": [
            [float(likely[bins == number].mean()), float(labels[bins == number].mean()), int((bins == number).sum())]
            for number in range(BINS)
            if (bins == number).any()
        ],
        "precision_recall": sorted({(round(float(r), 4), round(float(p), 4)) for r, p in zip(recall, precision, strict=True)}),
        "auroc": auroc,
        "average_precision": float(average_precision_score(~labels, 1 - likely)),
        "brier": float(brier_score_loss(labels, likely)),
        "count": len(told),
    }


def verification(rows: Sequence[Row], seed: int) -> dict[str, Figure]:
    """How well the verification tells true claims from corrupted ones (AUROC): in all, by where the claim is from, and by kind of corruption."""
    items = [(row["key"], item) for row in rows for item in row.get("claims", ())]
    found: dict[str, Figure] = {}
    for origin, title in (("support", "gold sentences"), ("answer", "reference answers")):
        own = [(key, item) for key, item in items if item["from"] == origin]
        for kind in ["", *sorted({item["kind"] for _, item in own} - {""})]:
            chosen = [(key, item) for key, item in own if not kind or item["kind"] in ("", kind)]
            value = separation([i["score"] for _, i in chosen], [not i["kind"] for _, i in chosen], [key for key, _ in chosen], seed)
            if value is not None:
                found[f"{title} · {kind}" if kind else title] = value
    return found


def differences(rows: Sequence[Row], before: Sequence[Row], seed: int) -> dict[str, Figure]:
    """How much each measure has changed on the questions that both runs have, question by question, with a paired interval."""
    known = {row["key"]: row["scores"] for row in before}
    pairs: dict[str, list[tuple[Score, Score]]] = {}
    for row in rows:
        for name, score in row["scores"].items():
            if name in known.get(row["key"], {}):
                pairs.setdefault(name, []).append((score, known[row["key"]][name]))
    found = {}
    for name, both in pairs.items():
        numbers = (*_columns([now for now, _ in both]), *_columns([then for _, then in both]))

        def statistic(*n: NDArray[np.float64], axis: int = -1) -> Any:
            with np.errstate(invalid="ignore", divide="ignore"):
                return n[0].sum(axis=axis) / n[1].sum(axis=axis) - n[2].sum(axis=axis) / n[3].sum(axis=axis)

        low, high = _interval(numbers, statistic, seed, vectorized=True)
        found[name] = Figure(float(statistic(*numbers)), low, high, len(both))
    return found
