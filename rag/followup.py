"""What a question means in its conversation: what it leans on, what search is to look for, and when to ask back. Pure: it knows words, not models."""

from __future__ import annotations

import re
from collections.abc import Sequence

from index.types import Hit
from index.words import ASKING_WORDS, FUNCTION_WORDS, WORD, content_words, stem
from rag.prompt import Message
from rag.types import Turn

REWRITE = "Rewrite the last question so that it can be understood without the conversation. Replace words like it, they or that by what they stand for. Reply with the question only."

Queries = tuple[tuple[str, float], ...]
"""Texts to search for, each with its weight."""

SAID = 300
"""Characters of one turn that are carried on: what a turn is about stands at its beginning."""

RECENT = 3
"""How many of the user's turns go beside the question: more drown it."""

TOPIC_WORDS = 8
TOPIC_CHARACTERS = 600
TOPIC_FADING = 0.85
"""The topic's words, where in a turn they are looked for, and what a word loses of its weight with each exchange that has passed since."""

LEANING = (1.0, 5.0, 1.0)
STANDING = (1.0, 0.5, 0.5)
"""Weights in the fusion of the question, of the recent turns and of the topic: where the question leans on history, and where it stands alone."""

SCATTERED = 3
"""From so many documents among the hits on, `the actor` has many to stand for; where fewer hold all hits, they tell who is meant."""

_LEANING = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|one|ones|there|then|same|such|other|others|another|former|latter)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^\s*(?:and|but|so|or|also|what about|how about|what else|why|who else|when|where)\b[\s,]*", re.IGNORECASE)
_COURTESY = frozenset(
    """cool fine good great hello help hi interesting know mean nice ok okay please really see sorry sure thank thanks think wait want
    wow""".split()  # noqa: SIM905
)
"""Words of a turn that keep a conversation going and say nothing about its subject."""

_QUOTES = "\"'“” "

_NEW_WORDS = 0.34
"""The part of a rewritten question's words that may be new: beyond it, the model has answered instead."""

_KINDS = frozenset(
    """actor actress aircraft airline airport album animal anime anthem artist athlete award band battle bird book boxer brand breed bridge canal
    candidate car castle cathedral celebrity chain championship church city club coach college colony comet composer constitution contest
    country county court crime currency dam dancer desert disease dish district dog dynasty election emperor empire episode event explorer
    festival film flag footballer franchise game general governor holiday hospital hotel hurricane instrument invention inventor island killer
    king lake language magazine mayor medicine minister monument mosque mountain movie museum musician newspaper novel opera painter painting
    palace park party philosopher planet player poem poet politician pope president prince princess product province queen religion restaurant
    river scandal school scientist season senator series ship show singer sitcom smartphone song species sport stadium star state statue storm
    superhero temple tournament tower town treaty tribe trophy university vaccine vehicle village virus volcano war winner""".split()  # noqa: SIM905
)
"""Kinds of which there are many, each with a name of its own: `the actor` is nobody before one was named.

Not `the company` or `the team`: in the papers of one house that is the house.
"""

_VAGUE = frozenset(
    """age area case century collection day decade era folder kind library matter moment month point regard sense sort subject time topic type way
    week year""".split()  # noqa: SIM905
)
"""What `this` stands before without pointing at a thing."""

_WHOLES = frozenset(["episode", "season"])
"""Kinds that `of` does not tell apart: a series has many."""

_OFFICES = frozenset("emperor governor king mayor minister pope president prime prince princess queen senator vice".split())  # noqa: SIM905
"""Capitals make no name of these: `the Prime Minister`."""

_TOLD = re.compile(r"[a-z]+est|first|second|third|last|final|next|previous|current|present|only|new|old|main|original|following|same", re.IGNORECASE)
"""What tells one of many apart: `the first season`."""

_DETERMINER = re.compile(r"\b(the|this)\s+", re.IGNORECASE)
_AUXILIARY = re.compile(
    r"\b(?:do|does|did|(?<!what )(?<!who )(?:is|are|was|were)|has|have|had|can|could|will|would|should|may|might|must)\s+$", re.IGNORECASE
)
_ENDING = re.compile(r"\W*$|[.,;:?!]|\s+(?:to|and|or|for|that|when|about|how|what)\b", re.IGNORECASE)
_SAID_WHICH = re.compile(
    r"\s*[\"“‘'(:]|\s+(?:of|that|which|who|whose|where|when|with|called|named|between|in|for|from|on|at|by|to|the|a|an)\b|\s+(?-i:[A-Z0-9])",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"\bin (?:the )?[A-Z]\w+(?: [A-Z]\w+)*|\b[A-Z]\w+(?:ish|ese|ian|can)\b(?= [a-z])")
"""Names that say where, or of which people, and not who: `in the United States`, `Jewish`."""

_PRONOUN = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers)\b|\b(?:this|that|these|those)(?=\W*$|\s+(?:is|are|was|were|do|does|did|will|can|mean)\b)",
    re.IGNORECASE,
)
_EXPLETIVE = re.compile(
    r"\bit\b(?:'s)?(?:\s+[\w'-]+){0,4}?\s+(?:to|that|if|when|for|like)\b|\b(?:what|how)\b[^,]*\bis it (?:in|at)\b|\bit (?:takes?|rains?|snows?)\b",
    re.IGNORECASE,
)
_WITHOUT_OBJECT = re.compile(
    r"\b(?:do|can|could|should|must|may|will|would|did) (?:i|we|you|one) [\w'-]+(?: (?:up|in|out|on|off|it|for it|there|now))?\W*$", re.IGNORECASE
)


def leans_on_history(question: str) -> bool:
    """Whether a question cannot be understood without what was said before: a pronoun before all that it could stand for, or no word of its own."""
    own = content_words(_OPENING.sub("", question))
    return len(own) < 2 or any(len(content_words(question[: found.start()])) < 3 for found in _LEANING.finditer(question))


def subject(history: Sequence[Turn], person: bool = False) -> str | None:
    """What the conversation is about: the one name that the user's latest turns hold; None when no turn holds one or several compete.

    `person`: somebody is meant. After a question for somebody (`Who …?`), that is the name that the reply brought.
    """
    for number in range(len(history) - 1, -1, -1):
        turn = history[number]
        if turn.role != "user":
            continue
        found = _names(turn.text)
        said = _names(history[number + 1].text) if number + 1 < len(history) and history[number + 1].role == "assistant" else []
        if person and re.match(r"\W*(?i:who|whom|whose)\b(?! (?:is|was) [A-Z])", turn.text):
            found = [name for name in said if name not in found][:1] or found
        if len(found) == 1:
            return found[0]
        if found:
            return None
    return None


def _names(text: str) -> list[str]:
    """Runs of words that look like one name: `Kestrel-5`, `Merlin 3.0`, `Ada Voss`."""
    tokens = list(WORD.finditer(text))
    runs: list[tuple[int, int]] = []
    for number, token in enumerate(tokens):
        word = re.sub(r"['’]s$", "", token.group())
        capital = word[0].isupper() or bool(re.search(r"\w[A-Z]|[A-Za-z]\d", word))
        if number == 0 and word.lower() in FUNCTION_WORDS | ASKING_WORDS | _COURTESY:
            continue
        starts = token.start()
        joined = bool(runs) and text[runs[-1][1] : starts] == " "
        if capital and word.lower() not in FUNCTION_WORDS and joined:
            runs[-1] = (runs[-1][0], starts + len(word))
        elif capital and word.lower() not in FUNCTION_WORDS:
            runs.append((starts, starts + len(word)))
        elif joined and re.fullmatch(r"\d+(?:\.\d+)*", word):
            runs[-1] = (runs[-1][0], token.end())
    return list(dict.fromkeys(text[start:end] for start, end in runs))


def resolved(question: str, history: Sequence[Turn]) -> str | None:
    """The question with its pronoun replaced by the conversation's subject: fast and sure, or None when it takes more than that."""
    about = subject(history, person=bool(re.search(r"\b(?:he|him|his|she|her|hers|they|them|their)\b", question, re.IGNORECASE)))
    if about is None or about.lower() in question.lower():
        return None
    plain = _OPENING.sub("", question) if re.match(r"\s*(?:and|but|so|also)\b", question, re.IGNORECASE) else question
    possessive = re.compile(r"\b(?:its|their|his|hers?(?=\s+[a-z]))\b", re.IGNORECASE)
    pronoun = re.compile(r"\b(?:it|they|them|he|him|she|her)\b(?!\s+(?:is|was)\s+(?:that|which|who)\b)", re.IGNORECASE)
    for pattern, name in ((possessive, about + ("'" if about.endswith("s") else "'s")), (pronoun, about)):
        found = pattern.search(plain)
        # `How is tea made in Japan, and what does it cost?` leans on itself.
        if found and not re.search(r",| and | but ", plain[: found.start()]):
            answer = plain[: found.start()] + name + plain[found.end() :]
            return answer[0].upper() + answer[1:]
    return None


def with_subject(question: str, history: Sequence[Turn]) -> str:
    """The question with the user's last turn that says something before it: what can be had when nothing better is."""
    last = next((turn.text[:SAID] for turn in reversed(history) if turn.role == "user" and _own(turn.text)), "")
    return f"{last} {question}".strip()


def standalone(question: str, history: Sequence[Turn]) -> str:
    """The question as it can be understood without the conversation, as well as rules can tell."""
    if not history or not leans_on_history(question):
        return question
    return resolved(question, history) or with_subject(question, history)


def searched(question: str, history: Sequence[Turn]) -> Queries:
    """What to search for, as far as words alone settle what the question means."""
    return queries((resolved(question, history) if leans_on_history(question) else None) or question, history)


def queries(question: str, history: Sequence[Turn]) -> Queries:
    """What to search for, each with its weight in the fusion: the question, then the question beside the user's last turns and beside the topic.

    A question that stands alone is searched for with little of the conversation, so that a new subject is found.
    """
    recent = [turn.text[:SAID] for turn in history if turn.role == "user" and _own(turn.text)][-RECENT:]
    topic = _topic(question, history)
    leaning = leans_on_history(question) or len(_own(question)) < 3
    texts = (question, " ".join([*recent, question]) if recent else "", f"{topic} {question}" if topic else "")
    return tuple((text, weight) for text, weight in zip(texts, LEANING if leaning else STANDING, strict=True) if text)


def _own(text: str) -> list[str]:
    """What a turn says of its subject."""
    return [word for word in content_words(_OPENING.sub("", text)) if word.lower() not in _COURTESY]


def _topic(question: str, history: Sequence[Turn]) -> str:
    """The words that come back in the turns of both sides, the later the weightier, without those of the question."""
    asked = {stem(word) for word in content_words(question)}
    weights: dict[str, float] = {}
    shown: dict[str, str] = {}
    for number, turn in enumerate(history):
        for stemmed, word in {stem(word): word for word in _own(turn.text[:TOPIC_CHARACTERS]) if len(word) > 1}.items():
            if stemmed not in asked:
                shown.setdefault(stemmed, word)
                weights[stemmed] = weights.get(stemmed, 0.0) + TOPIC_FADING ** ((len(history) - 1 - number) // 2)
    return " ".join(shown[stemmed] for stemmed in sorted(weights, key=lambda stemmed: -weights[stemmed])[:TOPIC_WORDS])


def unsettled(question: str, history: Sequence[Turn]) -> str | None:
    """The words of a question of which nobody has said what they stand for: `actor`, `it`, or the whole question; None where it can be understood."""
    noun = _open_noun(question, history)
    if noun or history:
        return noun
    own = content_words(question)
    plain = _EXPLETIVE.sub(" ", question)
    pronoun = next((found for found in _PRONOUN.finditer(plain) if not content_words(plain[: found.start()])), None)
    # With more words of its own, a question for `they` or `it` is about something in general: `how do they brew green tea at home`.
    if pronoun and ((len(own) < 3 and not _names(question)) or (pronoun.start() == 0 and pronoun.group().lower() in ("this", "these"))):
        return pronoun.group().lower()
    if not own and not re.search(r"\b(?:documents?|passages?|texts?|you)\b", question, re.IGNORECASE):
        return question
    return question if len(own) == 1 and _WITHOUT_OBJECT.search(question) else None


def _open_noun(question: str, history: Sequence[Turn]) -> str | None:
    """The first noun after `this`, or of a kind with many after `the`, that neither the conversation nor the question has brought up before."""
    said = " ".join(turn.text for turn in history)
    for found in _DETERMINER.finditer(question):
        before = question[: found.start()]
        run, end = _run(question, found.end())
        # Between its auxiliary and its verb stands a subject: `did the chain open`.
        verb = len(run) > 1 and (_AUXILIARY.search(before) or (run[-1].endswith("ed") and run[-2].lower() in _KINDS))
        noun = run[:-1] if verb else run
        if not noun or any(_TOLD.fullmatch(word) for word in noun):
            continue
        known = {_singular(word) for word in content_words(f"{said} {before}")}
        fresh = [word for word in noun if _singular(word) not in known]
        kinds = [number for number, word in enumerate(noun) if word.lower() in _KINDS]
        shown = " ".join(noun[: kinds[-1] + 1] if kinds else noun)
        if found.group(1).lower() == "this":
            # `Is this safe?` and `does this mean that …` have no noun.
            pronoun = len(run) == 1 and not kinds and _AUXILIARY.search(before) and _ENDING.match(question, end)
            if 2 * len(fresh) > len(noun) and not pronoun and not _capital(noun[1:]) and noun[-1].lower() not in _VAGUE:
                return shown
        elif kinds and kinds[-1] == len(noun) - 1 and noun[-1] in fresh and not re.search(r"\d", shown):
            office = all(word.lower() in _OFFICES for word in noun)
            part = noun[-1].lower() in _WHOLES and (question[end:].startswith(" of ") or noun[0][0].isupper())
            named = re.search('["“‘]', question) or _names(_BESIDE.sub("", before + question[end:])) or (_capital(noun) and not office)
            # Who writes no capitals writes names without them.
            nameless = len(noun) > 1 and question == question.lower()
            if part or not (named or nameless or (noun == run and _SAID_WHICH.match(question, end))):
                return shown
    return None


def _run(question: str, start: int) -> tuple[list[str], int]:
    """The words from `start` on up to the next function word, mark or possessive, without possessive endings, and where they end."""
    run: list[str] = []
    end = start
    for word in WORD.finditer(question, start):
        if question[end : word.start()].strip() or word.group().lower() in FUNCTION_WORDS:
            break
        end = word.end()
        run.append(re.sub(r"['’]s?$", "", word.group()))
        if run[-1] != word.group() and not run[-1][0].isupper():
            break
    return run, end


def _capital(words: Sequence[str]) -> bool:
    """Whether one of the words looks like a name's: `TV` does not."""
    return any(word[0].isupper() and not word.isupper() for word in words)


def _singular(word: str) -> str:
    """One form for singular and plural. A stem would not do: `animated` and `animal` share theirs."""
    return re.sub(r"ies$", "y", word.lower()).removesuffix("s")


def ask_back(question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> str | None:
    """The sentence that asks what a question stands for, where neither the conversation nor one document among the best hits tells; else None."""
    missing = unsettled(question, history)
    places = {hit.passage.document_id: hit.passage.title for hit in hits}
    if missing is None or len(places) < SCATTERED:
        return None
    if missing == question:
        return f"What is your question “{question}” about?"
    asked = f"What do you mean by “{missing}”" if _PRONOUN.fullmatch(missing) else f"Which {missing} do you mean"
    titles = list(dict.fromkeys(title for title in places.values() if title))[:2]
    if len(titles) < 2:
        return f"{asked}?"
    return f"{asked}: something in “{titles[0]}”, in “{titles[1]}”, or something else?"


def asked_in_vain(question: str, history: Sequence[Turn], standalone: str) -> str | None:
    """What to ask back when a follow-up was not found and its pronoun may stand for several things; None where the conversation tells what it stands for."""
    plain = _EXPLETIVE.sub(" ", question)
    # `They`, `their` and `his` may stand for what the question has named before; `it` rarely does so soon.
    most = {"it": 3, "its": 3}
    pronoun = next(
        (found for found in _PRONOUN.finditer(plain) if len(content_words(plain[: found.start()])) < most.get(found.group().lower(), 1)), None
    )
    if pronoun is None or not history or _names(question) or subject(history) is not None:
        return None
    taken = f" I looked for “{standalone}”." if standalone != question else ""
    return f"What do you mean by “{pronoun.group().lower()}”?{taken}"


def rewrite_messages(question: str, history: Sequence[Turn]) -> list[Message]:
    """Asks for the standalone question. Only the last turns go in, cut short: every token costs the user time."""
    said = "\n".join(f"{turn.role.capitalize()}: {' '.join(turn.text.split())[:SAID]}" for turn in history[-4:])
    return [{"role": "system", "content": REWRITE}, {"role": "user", "content": f"{said}\n\nLast question: {question}"}]


def rewritten(reply: str, question: str, history: Sequence[Turn]) -> str:
    """The model's standalone question if it is one, else the question beside the turn before it."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    first = lines[0].strip(_QUOTES) if lines else ""
    plain = re.sub(r"^(?:last |standalone |rewritten )?question:\s*", "", first, flags=re.IGNORECASE).strip(_QUOTES)
    said = " ".join([question, *(turn.text for turn in history)])
    known = {stem(word) for word in content_words(said)}
    told = content_words(plain)
    strange = [word for word in told if stem(word) not in known]
    # A rewrite that brings in what nobody said, or that answers, would search for the model's invention.
    invented = any(word[0].isupper() or word[0].isdigit() for word in strange[1:]) or len(strange) > _NEW_WORDS * len(told)
    answers = question.rstrip().endswith("?") and not plain.endswith("?")
    return plain if 3 <= len(plain) <= 300 and not invented and not answers else with_subject(question, history)
