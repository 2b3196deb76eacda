"""Tests of index.formats.furniture: what is no content is marked, what may be content is not, and every span is exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.formats.furniture import furniture_in
from index.formats.text import markdown, plain
from index.formats.web import html
from index.types import Reading, Span

STORY = [
    "The river rose by two metres in the night and flooded the lower town before anybody could be warned.",
    "Firemen carried forty people out of their houses, and nobody was hurt, the mayor said in the morning.",
    "The bridge will stay closed until engineers have looked at its piers, which may take until the weekend.",
    "Farmers along the valley expect to lose a third of the harvest, because the fields are still under water.",
]
BODY = "".join(f"<p>{sentence}</p>" for sentence in STORY * 3)
PAGE = f"""<html><body><nav><a href=/>Home</a> <a href=/s>Sport</a></nav><header><a href=/>The Daily Valley</a></header><main><article><h1>Flood</h1>{BODY}</article></main>
<aside><h3>Related stories</h3><ul><li><a href=/1>Drought in the south</a><li><a href=/2>Storm on the coast</a></ul></aside>
<form><p>Sign up for our newsletter</p><input type=email><button>Subscribe</button></form><footer>© 2024 The Daily Valley <a href=/p>Privacy</a></footer></body></html>"""
SAVED = "\n\n".join(
    [
        "Skip to content",
        "Menu",
        "Sign in",
        "The Night the River Rose",
        *STORY[:2],
        "Read also: Drought in the south",
        "What happens now",
        *STORY[2:],
        "Share this article",
        "Subscribe to our newsletter",
        "By signing up you agree to our Terms of Service and Privacy Policy.",
        "Related articles",
        "Storm on the coast",
        "Winds have torn roofs from houses all along the shore and...",
        "© 2024 The Daily Valley. All rights reserved.",
    ]
)


def marked(reading: Reading) -> str:
    return "\n".join(reading.text[span.start : span.end] for span in reading.furniture)


def left(text: str, spans: tuple[Span, ...]) -> str:
    for span in reversed(spans):
        text = text[: span.start] + text[span.end :]
    return text


def exact(text: str, spans: tuple[Span, ...]) -> bool:
    edges = [edge for span in spans for edge in (span.start, span.end)]
    return edges == sorted(set(edges)) and (not edges or (edges[0] >= 0 and edges[-1] <= len(text)))


def test_menus_forms_footers_and_related_stories_of_a_page_are_furniture() -> None:
    reading = html(PAGE.encode())
    for words in ("Home", "Sport", "Related stories", "Drought", "Storm", "Sign up", "Subscribe", "© 2024"):
        assert words in reading.text
        assert words in marked(reading)
    assert exact(reading.text, reading.furniture)


def test_no_sentence_of_the_story_is_furniture() -> None:
    reading = html(PAGE.encode())
    rest = left(reading.text, reading.furniture)
    assert "# Flood" in rest
    assert all(rest.count(sentence) == 3 for sentence in STORY)


@pytest.mark.parametrize("wrapper", ["<form>{}</form>", "<div class=sidebar>{}</div>", "<aside>{}</aside>", "<div id=modal-root>{}</div>"])
def test_a_page_within_an_element_named_for_furniture_is_content(wrapper: str) -> None:
    assert html(("<body>" + wrapper.format(f"<h1>Flood</h1>{BODY}")).encode()).furniture == ()


def test_a_box_beside_the_story_that_tells_something_is_content() -> None:
    box = "<aside><p>The last flood of this size was in 1954, when the old dam broke above the town.</p></aside>"
    assert "1954" not in marked(html(PAGE.replace("<aside>", box + "<aside>", 1).encode()))


def test_the_last_lines_of_an_article_are_not_those_of_the_site() -> None:
    page = PAGE.replace("</article>", "<footer><p>Additional reporting by Ann Smith from the lower town.</p></footer></article>")
    assert "Ann Smith" not in marked(html(page.encode()))


@pytest.mark.parametrize(
    "body",
    [
        "<table>" + "".join(f"<tr><td>Part {number}<td>{number * 7}" for number in range(30)) + "</table>",
        "<h1>Links</h1><ul>" + "".join(f"<li><a href=/{number}>Page number {number}</a>" for number in range(30)) + "</ul>",
        "<h1>Recipe</h1><ul><li>2 eggs<li>100 g flour<li>salt</ul><ol><li>Mix.<li>Bake.</ol>",
        "<dl><dt>Term<dd>Meaning<dt>Other<dd>Sense</dl>",
    ],
)
def test_pages_of_nothing_but_tables_or_lists_have_no_furniture(body: str) -> None:
    assert html(f"<body>{body}</body>".encode()).furniture == ()


def test_articles_saved_from_the_web_have_their_furniture_marked() -> None:
    spans = furniture_in(SAVED)
    rest = left(SAVED, spans)
    assert exact(SAVED, spans)
    for words in (
        "Skip to content",
        "Sign in",
        "Read also",
        "Share this",
        "Subscribe",
        "By signing up",
        "Related articles",
        "Storm on",
        "Winds have",
        "© 2024",
    ):
        assert words not in rest
    for words in ("The Night the River Rose", "What happens now", *STORY):
        assert words in rest


def test_text_and_markdown_files_carry_their_furniture() -> None:
    assert plain(SAVED.encode()).furniture == markdown(SAVED.encode()).furniture == furniture_in(SAVED) != ()


@pytest.mark.parametrize(
    "text",
    [
        "# Notes\n\n- call Ann\n- buy milk\n\nSee also the list from last week.\n\nHome\n\nMenu\n\nSearch\n",
        "# Library\n\n## Subscribe\n\nCall `subscribe(topic)`.\n\n## See also\n\n- [Other](https://example.org)\n\n## License\n\nCopyright (c) 2024 Ann\n\nAll rights reserved.\n",
        "Minutes\n\nPresent: Ann, Bob\n\nPrivacy policy\n\nAnn will rewrite it by May.\n\nNewsletter\n\nBob sends it on Friday.\n",
        "Pancakes\n\n2 eggs\n100 g flour\nsalt\n\nMix\nFry\nShare\n",
        "```\nSubscribe now\nSign in\nPrivacy policy\nLeave a comment\nAdvertisement\n```\n",
        "| Page | Hits |\n| --- | --- |\n| Subscribe now | 3 |\n| Privacy policy | 9 |\n| Sign in | 2 |\n| Advertisement | 1 |\n",
        "",
    ],
)
def test_notes_documentation_minutes_code_and_tables_have_none(text: str) -> None:
    assert furniture_in(text) == ()


@given(
    st.lists(st.sampled_from([*SAVED.split("\n\n"), "# A heading", "- an item", "```", "a | b", "…", ""]), max_size=60),
    st.sampled_from(["\n", "\n\n", "\r\n"]),
)
def test_spans_are_exact_for_every_order_of_lines(pieces: list[str], newline: str) -> None:
    text = newline.join(pieces)
    spans = furniture_in(text)
    assert exact(text, spans)
    for span in spans:
        assert text[span.start : span.end] == text[span.start : span.end].strip()
    # A sentence of the story is never in it.
    assert all(left(text, spans).count(sentence) == text.count(sentence) for sentence in STORY)


def test_looking_for_furniture_takes_no_longer_than_the_text_is_long() -> None:
    assert furniture_in("a" * 900_000) == furniture_in("see also " * 100_000) == furniture_in("." * 900_000) == ()
