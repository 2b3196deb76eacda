"""Tests of rag.followup: what a follow-up stands for, what is searched for it, and which questions are asked back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.types import Hit, Passage, Span
from rag import followup
from rag.types import Turn


def said(*texts: str) -> list[Turn]:
    """A conversation, the user first."""
    return [Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def hits(*titles: str) -> list[Hit]:
    """One hit from each of as many documents."""
    return [
        Hit(Passage(f"p{number}", f"d{number}", f"{number}.md", title, "", Span(0, 4), "Text"), 1.0 - number / 10)
        for number, title in enumerate(titles)
    ]


# Leaning questions


@pytest.mark.parametrize(
    "question",
    [
        "And who built it?",
        "What about its price?",
        "Why?",
        "When was that?",
        "How heavy are they?",
        "And the crew?",
        "Who is her father?",
        "Are there others?",
        "What else?",
    ],
)
def test_leaning_questions_are_told(question: str) -> None:
    assert followup.leans_on_history(question)


@pytest.mark.parametrize(
    "question",
    ["Who built the lander Apollo?", "How hot should water for green tea be?", "Where do Serrin ferries sail?", "List the harbours of Aldmouth."],
)
def test_questions_that_stand_alone_are_told(question: str) -> None:
    assert not followup.leans_on_history(question)


@pytest.mark.parametrize(
    ("question", "before", "standalone"),
    [
        ("And who built it?", ["What is Apollo?", "A lander."], "Who built Apollo?"),
        ("What is its mass?", ["What is Apollo?", "A lander."], "What is Apollo's mass?"),
        ("When did he retire?", ["Who is Ada Okafor?", "A skipper."], "When did Ada Okafor retire?"),
        ("but where does it sail?", ["What is the Harbour Light?", "A ferry."], "Where does Harbour Light sail?"),
        ("What are their plans?", ["What does Voss Motors make?", "Engines."], "What are Voss Motors' plans?"),
        ("How fast is it?", ["Describe Kestrel 2.5 in a line", "A drone.", "And the price?", "High."], "How fast is Kestrel 2.5?"),
    ],
)
def test_a_pronoun_gets_the_subject(question: str, before: list[str], standalone: str) -> None:
    assert followup.resolved(question, said(*before)) == standalone


@pytest.mark.parametrize(
    ("question", "before"),
    [
        ("Who built it?", []),
        ("Who built it?", ["how hot is tea?", "Very."]),
        ("Which of them is faster?", ["Is Kestrel faster than Merlin?", "Yes."]),
        ("Is it Apollo?", ["What is Apollo?", "A lander."]),
        ("And the price?", ["What is Apollo?", "A lander."]),
    ],
)
def test_nothing_is_guessed_where_the_subject_is_not_sure(question: str, before: list[str]) -> None:
    assert followup.resolved(question, said(*before)) is None


@pytest.mark.parametrize(
    "question",
    ["Who wrote the report that praises tea?", "Which captains think that taxes are too high?", "How is tea made in Japan, and what does it cost?"],
)
def test_a_pronoun_that_does_not_lean_on_history_is_left_alone(question: str) -> None:
    assert followup.resolved(question, said("What is Kestrel?", "A ferry.")) in (None, question)


def test_the_assistants_words_do_not_make_the_subject() -> None:
    assert followup.subject(said("What is Apollo?", "Apollo beat Soyuz and Merlin.")) == "Apollo"


@pytest.mark.parametrize(
    ("before", "expected"),
    [([], "Why?"), (["What is Apollo?", "A lander."], "What is Apollo? Why?"), (["One?", "1", "Two?", "2"], "Two? Why?")],
)
def test_with_subject_puts_the_last_user_turn_in_front(before: list[str], expected: str) -> None:
    assert followup.with_subject("Why?", said(*before)) == expected


HISTORY = said("What is Apollo?", "A lander that Grumman built.")


def test_a_rewrite_with_a_hyphenated_name_is_taken() -> None:
    assert (
        followup.rewritten("Why did Zhipu release GLM-5?", "Why did they?", said("Who released GLM-5?", "Zhipu did release it."))
        == "Why did Zhipu release GLM-5?"
    )


def test_thanks_are_no_name() -> None:
    assert followup.subject(said("Thank you", "You are welcome.")) is None
    assert followup.resolved("Did it burn in 1850?", said("Tell me about Arlen Castle", "A castle.", "Thanks a lot", "Welcome.")) == (
        "Did Arlen Castle burn in 1850?"
    )


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Why did Grumman build Apollo?", "Why did Grumman build Apollo?"),
        ("Question: Why was Apollo built?\nBecause.", "Why was Apollo built?"),
        ('\n  "Last question: Why was Apollo built?"', "Why was Apollo built?"),
        ("Why did Grumman build Apollo with open-source parts?", "What is Apollo? Why?"),
        ("Apollo was built to land on the Moon in 1969.", "What is Apollo? Why?"),
        ("Was Apollo built because presidents wanted prestige abroad?", "What is Apollo? Why?"),
        ("", "What is Apollo? Why?"),
        ("?", "What is Apollo? Why?"),
        ("x" * 301, "What is Apollo? Why?"),
        ("Why did Elon Musk buy Apollo from Boeing?", "What is Apollo? Why?"),
    ],
)
def test_a_rewrite_is_taken_only_when_it_is_a_question_of_this_conversation(reply: str, expected: str) -> None:
    assert followup.rewritten(reply, "Why?", HISTORY) == expected


def test_only_the_last_turns_are_rewritten_from_and_each_is_cut_short() -> None:
    history = said("FIRST", "second", "third " * 500, "fourth", "fifth", "sixth")
    asked = followup.rewrite_messages("Why?", history)[-1]["content"]
    assert "FIRST" not in asked
    assert asked.endswith("Last question: Why?")
    assert len(asked) < 4 * 350


# What is searched for


def test_without_history_the_question_alone_is_searched_for() -> None:
    assert followup.queries("Who built it?", []) == (("Who built it?", 1.0),)


def test_the_question_comes_first_then_the_users_last_turns_then_the_topic() -> None:
    history = said("What is Apollo?", "Apollo is a lander.", "Thanks!", "You are welcome.")
    (alone, _), (recent, _), (topic, _) = followup.queries("Who built it?", history)
    assert alone == "Who built it?"
    assert recent == "What is Apollo? Who built it?"
    assert topic.startswith("Apollo ")
    assert "lander" in topic
    assert "Thanks" not in topic
    assert topic.endswith(" Who built it?")


def test_history_weighs_more_than_a_leaning_question_and_less_than_one_that_stands_alone() -> None:
    history = said("What is Apollo?", "A lander that Grumman built.")
    leaning = [weight for _, weight in followup.queries("And its mass?", history)]
    standing = [weight for _, weight in followup.queries("Which harbours do Serrin ferries reach on Sunday?", history)]
    assert leaning[1] > leaning[0]
    assert standing[0] >= standing[1] + standing[2]


def test_the_topic_is_what_comes_back_not_what_was_said_once_or_long_ago() -> None:
    history = said("Tell me about tea.", "Tea is hot.", "And helmets?", "Helmets are hard.", "Who makes helmets?", "Riddell makes helmets.")
    topic = followup.queries("Which one has five stars?", history)[2][0].split()
    assert topic[0].lower() == "helmets"
    assert topic.index("Riddell") < topic.index("hot")


@given(st.text(max_size=60), st.lists(st.builds(Turn, st.sampled_from(["user", "assistant"]), st.text(max_size=60)), max_size=5))
def test_queries_are_never_empty_and_no_turn_is_carried_on_whole(question: str, history: list[Turn]) -> None:
    found = followup.queries(question or "x", [*history, Turn("user", "word " * 500)])
    assert all(text and weight > 0 for text, weight in found)
    assert max(len(text) for text, _ in found) < 4 * followup.SAID + 100


# Asking back

PLACES = hits("Chris Hemsworth", "Harrison Ford", "James Dean")


@pytest.mark.parametrize(
    ("question", "missing"),
    [
        ("What about it?", "it"),
        ("Who made them?", "them"),
        ("How much does it cost?", "it"),
        ("This is one of a few with a roof.", "this"),
        ("How do I apply?", "How do I apply?"),
        ("Where can we sign up?", "Where can we sign up?"),
        ("Why?", "Why?"),
        ("Where did the actor go to school?", "actor"),
        ("How is this burger made?", "burger"),
        ("When was the famous museum opened?", "famous museum"),
        ("How did the hospital chain grow in the United States?", "hospital chain"),
        ("Which stadium does the country's team play in?", "country"),
        ("What does the Prime Minister earn?", "Prime Minister"),
        ("Was the season of Harbour Tales good?", "season"),
    ],
)
def test_out_of_nowhere_it_is_told_what_nobody_has_named(question: str, missing: str) -> None:
    assert followup.unsettled(question, []) == missing


@pytest.mark.parametrize(
    "question",
    [
        "Who built the lander Apollo?",
        "How hot should water for green tea be?",
        "Is it possible to appeal against a penalty?",
        "What time is it in Aldmouth?",
        "How do they press olives for oil?",
        "How is tea made in Japan, and what does it cost?",
        "What do these documents say?",
        "Who is the president of Serrin?",
        "Who sang the song “Harbour Light”?",
        "What did Ada Okafor say about the hospital?",
        "Which captains think that taxes are too high?",
        "What is the longest river?",
        "What is the museum policy on travel?",
        "What did the company earn?",
        "who painted the old tarn bridge",
        "What happened this year?",
        "Where do I apply for a mooring licence?",
        "What is apoptosis?",
    ],
)
def test_questions_that_can_be_understood_are_not_asked_back(question: str) -> None:
    assert followup.unsettled(question, []) is None
    assert followup.ask_back(question, [], PLACES) is None


@pytest.mark.parametrize(
    ("question", "before"),
    [
        ("What about it?", ["What is Apollo?", "A lander."]),
        ("How do I apply?", ["Are there grants?", "Yes."]),
        ("Where did the actor go to school?", ["Who played Thor?", "An actor named Hemsworth."]),
        ("Is this song famous?", ["Who sings Harbour Light?", "It is a song by Serrin."]),
    ],
)
def test_what_was_said_before_settles_it(question: str, before: list[str]) -> None:
    assert followup.unsettled(question, said(*before)) is None


def test_a_conversation_about_something_else_does_not_settle_it() -> None:
    assert followup.unsettled("When was the singer born?", said("What is Apollo?", "A lander.")) == "singer"


def test_asking_back_names_what_it_could_mean() -> None:
    asked = followup.ask_back("Where did the actor go to school?", [], PLACES)
    assert asked is not None
    assert asked.startswith("Which actor do you mean")
    assert asked.endswith("?")
    assert "“Chris Hemsworth”" in asked
    assert "“Harrison Ford”" in asked


@pytest.mark.parametrize("question", ["What about it?", "How do I apply?", "How is this burger made?"])
def test_asking_back_is_one_question_whatever_the_titles(question: str) -> None:
    for places in (PLACES, hits("", "", ""), hits("Same", "Same", "Same")):
        asked = followup.ask_back(question, [], places)
        assert asked is not None
        assert asked.endswith("?")
        assert ". " not in asked
        assert "“”" not in asked


def test_documents_that_leave_no_choice_settle_it() -> None:
    assert followup.ask_back("Where did the actor go to school?", [], hits("Chris Hemsworth", "Harrison Ford")) is None
    assert followup.ask_back("What about it?", [], []) is None


@given(st.text(max_size=120))
def test_whatever_is_asked_what_is_missing_stands_in_the_question(question: str) -> None:
    missing = followup.unsettled(question, [])
    assert missing is None or all(word in question.lower() for word in missing.lower().split())


@pytest.mark.parametrize(
    ("question", "said", "asked"),
    [
        ("How much does it pay?", "Tell me about ships and harbours.", "What do you mean by “it”? I looked for “How much does a ship pay?”."),
        ("How much does it pay?", "Who built the Kestrel?", None),  # one name: it is plain
        ("How much does it pay to work at sea?", "Tell me about ships and harbours.", None),
        ("How much does Okafor pay for it?", "Tell me about ships and harbours.", None),
        ("How much is paid?", "Tell me about ships and harbours.", None),
        ("Do whales feed their calves?", "Tell me about ships and harbours.", None),
        ("Who paid the captain and his crew?", "Tell me about ships and harbours.", None),
    ],
)
def test_what_was_not_found_is_asked_back_where_a_pronoun_may_stand_for_several_things(question: str, said: str, asked: str | None) -> None:
    assert followup.asked_in_vain(question, [Turn("user", said), Turn("assistant", "Ships lie in harbours.")], "How much does a ship pay?") == asked
    assert followup.asked_in_vain(question, [], question) is None
