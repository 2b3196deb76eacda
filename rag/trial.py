"""Whether a model answers: the services that are known by name, and one tiny question to one of them."""

from __future__ import annotations

import os
import time
from typing import Any

from index.errors import CitewellError, ModelUnavailable
from rag import weights
from rag.model import EmbeddedModel, reply
from rag.presets import PRESETS
from rag.resilient import Resilient
from rag.settings import Settings

QUESTION = [
    {"role": "system", "content": "You answer in one word."},
    {"role": "user", "content": "Is water wet? Reply yes or no."},
]
TOKENS = 16


def listing() -> list[dict[str, Any]]:
    """The presets as plain values. Of a key, only whether it is set."""
    return [
        {
            "name": name,
            "title": preset.title,
            "model": preset.model,
            "key_variable": preset.key,
            "key_set": bool(os.environ.get(preset.key)) if preset.key else None,
            "url": preset.url,
            "source": preset.source,
        }
        for name, preset in PRESETS.items()
    ]


def tried(settings: Settings) -> dict[str, Any]:
    """Asks the model that is set, as a question would: `answered`, `seconds`, `probabilities` (whether it tells them) and `text`, a sentence for the user.

    Raises InvalidSettings, DamagedWeights for a model that cannot be set up at all.
    """
    from rag.assistant import configured_model

    model, status = configured_model(settings)
    if model is None:
        advice = "Run `citewell fetch` first." if settings.model in weights.CATALOG else "Choose a model to ask."
        raise CitewellError(f"There is no model to ask: {status.message} {advice}")
    asking = Resilient([model], settings.longest_answer)
    began = time.monotonic()
    problem = ""
    try:
        text, _ = reply(asking, QUESTION, TOKENS)
        asking.probability(QUESTION)
    except ModelUnavailable as error:
        problem = str(error)
    finally:
        asking.close()
        if isinstance(model, EmbeddedModel):
            model.close()
    seconds = round(time.monotonic() - began, 2)
    told = {"name": settings.model_shown, "model": model.name, "answered": not problem, "seconds": seconds, "probabilities": None}
    if problem:
        return {**told, "text": problem}
    certain = bool(getattr(model, "tells_probabilities", True))
    how = (
        "It tells probabilities, so refusal is calibrated."
        if certain
        else "It tells no probabilities, so it is taken at its word whether the documents answer."
    )
    return {**told, "probabilities": certain, "text": f"'{model.name}' answered “{text.strip()}” in {seconds:g} seconds. {how}"}
