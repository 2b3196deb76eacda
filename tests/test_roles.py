"""Tests of rag.roles: what stands where is told from the words around it, in whatever order the sentence has them."""

from __future__ import annotations

import pytest

from rag.roles import denied, displaced, setting
from rag.support import DENIED, DISPLACED

SOURCE = "The ferry Kestrel rammed the ferry Merlin in 1990 , and Falcon ( a tug ) towed 40 barges past Bremen ."
KNOWN = frozenset(("kestrel", "merlin", "falcon", "bremen"))


def moved(claim: str, source: str = SOURCE) -> bool:
    """Whether the source gives a place of the claim to something else."""
    said, told = setting((claim,), KNOWN), setting((source,), KNOWN)
    return displaced(said, told.places, told.places, told.certain) > DISPLACED


@pytest.mark.parametrize(
    "claim",
    [
        SOURCE,
        "In 1990 the ferry Kestrel rammed the ferry Merlin.",
        "The ferry Merlin was rammed by the ferry Kestrel in 1990.",
        "Falcon towed 40 barges past Bremen.",
        "Past Bremen, Falcon towed 40 barges.",
        "Kestrel rammed Merlin.",
    ],
)
def test_another_order_or_voice_moves_nothing(claim: str) -> None:
    assert not moved(claim)


@pytest.mark.parametrize(
    "claim",
    [
        "The ferry Merlin rammed the ferry Kestrel in 1990.",
        "The ferry Kestrel rammed the ferry Merlin in 40, and Falcon towed 1990 barges past Bremen.",
        "Bremen towed 40 barges past Falcon.",
        "The ferry Kestrel rammed the ferry Bremen in 1990.",
    ],
)
def test_what_changes_places_is_seen(claim: str) -> None:
    assert moved(claim)


def test_the_passive_turns_sides() -> None:
    assert moved("Kestrel was rammed by Merlin in 1990.", "Kestrel rammed Merlin in 1990.")
    assert not moved("Merlin was rammed by Kestrel in 1990.", "Kestrel rammed Merlin in 1990.")


def test_common_words_change_places_too() -> None:
    assert moved("The hare chased the fox over the hill.", "The fox chased the hare over the hill.")
    assert not moved("The hare was chased by the fox over the hill.", "The fox chased the hare over the hill.")


def test_a_comparison_turned_round_is_seen() -> None:
    assert moved("Falcon carries more barges than cars.", "Falcon carries fewer barges than cars.")
    assert moved("Falcon sails before noon on Sundays.", "Falcon sails after noon on Sundays.")


@pytest.mark.parametrize(
    ("claim", "source", "opposite"),
    [
        ("Falcon does not tow barges at night.", "Falcon tows barges at night.", True),
        ("Falcon tows barges at night.", "Falcon does not tow barges at night.", True),
        ("Falcon doesn't tow barges at night.", "Falcon does n't tow barges at night .", False),
        ("Falcon tows barges at night.", "Falcon, which does not carry mail, tows barges at night.", False),
        ("The tug tows barges.", "This is not the same as the tug that tows barges.", False),
    ],
)
def test_a_denial_on_one_side_alone_is_seen(claim: str, source: str, opposite: bool) -> None:
    said, told = setting((claim,), KNOWN), setting((source,), KNOWN)
    assert (denied(said, told, told.gaps) > DENIED) is opposite


def test_a_lone_neighbour_puts_nobody_in_anothers_place() -> None:
    source = "Falcon has unveiled Kestrel, a new ship. Its captain Merlin named Kestrel's sense of time a key innovation."
    assert not moved("Falcon made Kestrel.", source)
