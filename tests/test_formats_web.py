"""Tests of index.formats.web: pages, e-books and XML become the text that is seen on them, whatever they throw at the reader."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import UnreadableDocument
from index.formats.archive import OLE
from index.formats.web import epub, html, xml
from index.split import split
from index.types import Document, Reading

BILLION_LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><l>&b;</l>'
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The Book</dc:title></metadata>
<manifest><item id="a" href="one.xhtml" media-type="application/xhtml+xml"/><item id="b" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="b"/><itemref idref="a"/></spine></package>"""


def text(body: str) -> str:
    return html(f"<html><body>{body}</body></html>".encode()).text.strip()


def trails(reading: Reading) -> list[str]:
    document = Document("id", "page.html", reading.title or "page", reading.text, "fingerprint")
    return [passage.heading for passage in split(document)]


def book(**replaced: str | None) -> bytes:
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": PACKAGE,
        "OEBPS/one.xhtml": "<html><body><h1>Last</h1><p>It ends.</p></body></html>",
        "OEBPS/text/two b.xhtml": "<html><body><h1>First</h1><p>It begins.</p></body></html>",
        **replaced,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    return packed.getvalue()


def test_headings_become_headings_and_passages_stand_under_them() -> None:
    reading = html(b"<title>Guide | Site</title><h1>Guide</h1><p>Hello there.</p><h2>Setup</h2><p>Turn the key.</p><h3>Care</h3><p>Oil it.</p>")
    assert reading.text == "# Guide\n\nHello there.\n\n## Setup\n\nTurn the key.\n\n### Care\n\nOil it.\n"
    assert trails(reading) == ["", "Setup", "Setup > Care"]


def test_each_paragraph_is_one_line_and_a_break_is_a_new_one() -> None:
    assert text("<p>One\n  two&nbsp;three<br>four <b>five</b>, <i>six</i>.</p><div>seven<div>eight</div>nine</div>") == (
        "One two three\nfour five, six.\n\nseven\n\neight\n\nnine"
    )


def test_lists_keep_their_marks_numbers_and_depth() -> None:
    assert text("<ul><li>a<ol start=3><li>b<li>c</ol></li><li><p>d</p><p>e</p></ul>") == "- a\n  3. b\n  4. c\n- d\n\ne"


def test_table_rows_are_readable_alone_with_their_header() -> None:
    table = "<table><caption>Sales</caption><tr><th>Region<th>Units<tr><td>North<td>1200<tr><td>South<td>900</table>"
    assert text(table) == "Sales\n\nRegion: North; Units: 1200\nRegion: South; Units: 900"


def test_a_cell_over_several_rows_or_columns_stands_in_each_row() -> None:
    table = (
        "<table><thead><tr><td rowspan=2>Region<td colspan=2>Units<tr><td>2023<td>2024</thead><tr><td rowspan=2>North<td>1<td>2<tr><td>3<td>4</table>"
    )
    assert text(table) == "Region: North; Units 2023: 1; Units 2024: 2\nRegion: North; Units 2023: 3; Units 2024: 4"


def test_a_first_row_of_names_above_numbers_is_a_header_though_the_page_does_not_say_so() -> None:
    assert (
        text("<table><tr><td>Region<td>Units<tr><td>North<td>1,200<tr><td>South<td>900</table>")
        == "Region: North; Units: 1,200\nRegion: South; Units: 900"
    )
    assert text("<table><tr><td>North<td>big<tr><td>South<td>small<tr><td>West<td>tiny</table>") == "North | big\nSouth | small\nWest | tiny"


def test_a_table_that_lays_out_a_page_is_so_many_paragraphs() -> None:
    assert text("<table><tr><td><h2>Left</h2>words<td><table><tr><td>a<td>b<tr><td>c<td>d</table><tr><td>x<td>y</table>") == (
        "## Left\n\nwords\n\na | b\nc | d\n\nx\n\ny"
    )


def test_code_keeps_its_lines_and_is_fenced() -> None:
    assert text("<pre><code>def f():\n    # not a heading\n    return 1\n</code></pre>") == "```\ndef f():\n    # not a heading\n    return 1\n```"
    assert trails(html(b"<pre># no heading\n</pre><p>Words.</p>")) == [""]


def test_nothing_of_scripts_styles_and_hidden_elements_is_read() -> None:
    page = (
        "<style>p{}</style><script>var a</script><noscript>no</noscript><template>t</template><p hidden>h</p><p style='color:red; display: none'>d</p>"
        "<svg><title>icon</title></svg><span aria-hidden=true>x</span><!-- note --><p>Seen.</p>"
    )
    assert text(page) == "Seen."


def test_a_page_that_hides_itself_or_is_hidden_below_a_window_is_read() -> None:
    assert html(b"<body style='display:none'><div aria-hidden=true><p>Seen.</p></div>").text == "Seen.\n"


def test_links_give_their_words_and_pictures_only_what_says_something() -> None:
    assert (
        text("<a href=/x>Our shop</a><a href=/y>About</a> <img alt='logo'><img alt='DSC_01.JPG'><img alt='A map of Rome'>")
        == "Our shop About A map of Rome"
    )


def test_powers_and_notes_do_not_become_part_of_a_number() -> None:
    assert text("10<sup>6</sup> and 7<sup><a href=#n>2</a></sup> and 1<sup>st</sup>, H<sub>2</sub>O") == "10^6 and 7 2 and 1st, H2O"


def test_hints_where_words_may_break_are_not_kept_inside_them() -> None:
    assert text("Donau&shy;dampf&#8203;schiff") == "Donaudampfschiff"


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>Guide | Site</title><h1>Guide</h1>", "Guide"),
        ("<title>Site: news - Guide</title><meta property=og:title content=Guide>", "Guide"),
        ("<title>Plus | Minus</title><h1>Signs</h1>", "Plus | Minus"),
        ("<meta property=og:title content=Card><h1>Head</h1>", "Card"),
        ("<h1>Head</h1>", "Head"),
        ("<p>Words</p>", None),
    ],
)
def test_titles_lose_the_site_only_where_the_page_agrees(page: str, title: str | None) -> None:
    assert html(page.encode()).title == title


@pytest.mark.parametrize(
    "content",
    [
        "<meta charset=windows-1251><p>Привет, мир</p>".encode("cp1251"),
        "<meta http-equiv=Content-Type content='text/html; charset=koi8-r'><p>Привет, мир</p>".encode("koi8-r"),
        "<?xml version='1.0' encoding='iso-8859-5'?><html><body><p>Привет, мир</p></body></html>".encode("iso-8859-5"),
        "<meta charset=utf-16><p>Привет, мир</p>".encode(),
        "<meta charset=iso-8859-1><p>Привет, мир</p>".encode("utf-16"),
        "<meta charset=no-such-thing><p>Привет, мир</p>".encode(),
        "<p>Привет, мир</p>".encode("utf-8-sig"),
    ],
)
def test_pages_are_decoded_as_they_declare_or_as_they_are(content: bytes) -> None:
    assert html(content).text == "Привет, мир\n"


def test_pages_called_latin_1_are_windows_1252_as_in_browsers() -> None:
    assert html("<meta charset=iso-8859-1><p>“5 €”</p>".encode("cp1252")).text == "“5 €”\n"


@pytest.mark.parametrize("tag", ["div", "b", "span", "blockquote"])
def test_fifty_thousand_nested_elements_are_read(tag: str) -> None:
    assert html(b"<%b>" % tag.encode() * 50_000 + b"deep" + b"</%b>" % tag.encode() * 50_000 + b"<p>after</p>").text.split() == ["deep", "after"]


@pytest.mark.parametrize("content", [b"<table><tr><td>" * 50_000 + b"x", b"<ul><li>" * 50_000 + b"x"])
def test_nesting_that_means_something_is_refused_rather_than_cut(content: bytes) -> None:
    with pytest.raises(UnreadableDocument, match="nested too deep"):
        html(content)


@pytest.mark.parametrize("read", [html, xml])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_unfold(read: type, encoding: str) -> None:
    with pytest.raises(UnreadableDocument, match="defines entities"):
        read(BILLION_LAUGHS.replace("?>", f' encoding="{encoding}"?><!-- <x> -->').encode(encoding))


@pytest.mark.parametrize("content", [b"%PDF-1.4 x", b"PK\x03\x04xx", OLE + b"x"])
def test_other_files_called_pages_are_refused(content: bytes) -> None:
    for read, kind in ((html, "web page"), (xml, "XML")):
        with pytest.raises(UnreadableDocument, match=f"it is no {kind}"):
            read(content)


def test_a_spanning_cell_cannot_cost_memory() -> None:
    reading = html(b"<table>" + b"<tr><th colspan=99999 rowspan=99999>x<tr><td>y" * 2_000 + b"</table>")
    assert len(reading.text) < 1_000_000


@given(st.lists(st.sampled_from(["<p>", "</p>", "<table>", "<tr>", "<td>", "</td>", "</table>", "<ul>", "<li>", "</li>", "<h2>", "</h2>", "<pre>", "</pre>", "<nav>",
                                 "</nav>", "<form>", "<aside>", "<br>", "<a href=x>", "</a>", "one two", "It is a sentence of more than eight words, you see. "]), max_size=40))  # fmt: skip
def test_no_order_of_tags_loses_words_or_makes_impossible_furniture(pieces: list[str]) -> None:
    reading = html(("<body>" + "".join(pieces)).encode())
    assert reading.text.split().count("sentence") == sum("sentence" in piece for piece in pieces)
    ends = [0]
    for span in reading.furniture:
        assert ends[-1] <= span.start < span.end <= len(reading.text)
        ends.append(span.end)


def test_an_e_book_is_read_in_the_order_of_its_spine() -> None:
    reading = epub(book())
    assert reading.text == "# First\n\nIt begins.\n\n# Last\n\nIt ends.\n"
    assert reading.title == "The Book"
    assert trails(reading) == ["First", "Last"]


def test_e_books_that_cannot_be_read_say_why() -> None:
    cases = {
        "protected against copying": book(**{"META-INF/encryption.xml": '<encryption><CipherReference URI="OEBPS/one.xhtml"/></encryption>'}),
        "chapter 'OEBPS/one.xhtml' is missing": book(**{"OEBPS/one.xhtml": None}),
        "no e-book": book(**{"META-INF/container.xml": None}),
        "list of its chapters is missing": book(**{"OEBPS/book.opf": None}),
        "defines entities": book(**{"OEBPS/book.opf": BILLION_LAUGHS}),
        "damaged": b"PK\x03\x04 nothing",
    }
    for reason, content in cases.items():
        with pytest.raises(UnreadableDocument, match=reason):
            epub(content)
    with pytest.raises(UnreadableDocument, match="defines entities"):
        epub(book(**{"OEBPS/one.xhtml": BILLION_LAUGHS}))


def test_scrambled_fonts_are_no_copy_protection() -> None:
    assert epub(book(**{"META-INF/encryption.xml": '<encryption><CipherReference URI="OEBPS/font.otf"/></encryption>'})).title == "The Book"


def test_a_feed_becomes_articles_under_their_titles() -> None:
    feed = """<?xml version="1.0"?><rss version="2.0"><channel><title>News</title><item><title>Rain &amp;amp; sun</title><pubDate>Mon, 1 Jan</pubDate>
    <description>&lt;p&gt;It &lt;b&gt;rained&lt;/b&gt;.&lt;/p&gt;&lt;ul&gt;&lt;li&gt;much&lt;/ul&gt;</description></item>
    <item><title>Snow</title><description><![CDATA[<p>It snowed.]]></description></item></channel></rss>"""
    reading = xml(feed.encode())
    assert reading.title == "News"
    assert "## Rain & sun\n\n- pubDate: Mon, 1 Jan\n\nIt rained.\n\n- much\n\n## Snow\n\nIt snowed." in reading.text


def test_other_xml_names_its_values_and_keeps_attributes_and_paragraphs() -> None:
    assert xml(b"<shop><item id='7'><name>Pen</name><price cur='EUR'>2</price></item><note>Sold <b>out</b> today.</note></shop>").text == (
        "- id: 7; name: Pen; price: 2; cur: EUR\n\nSold out today.\n"
    )


def test_xhtml_called_xml_is_a_page() -> None:
    assert xml(b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Hi</h1><script>x</script></body></html>').text == "# Hi\n"


def test_what_is_no_xml_is_kept_as_the_text_it_is() -> None:
    assert xml(b"<a>this & that").text == "<a>this & that"


def test_characters_named_as_in_pages_are_understood_in_xml() -> None:
    assert xml(b"<a><b>caf&eacute; &lt;x&gt;</b></a>").text == "- b: café <x>\n"


def test_deep_xml_is_refused_with_its_reason() -> None:
    with pytest.raises(UnreadableDocument, match="nested too deep"):
        xml(b"<a>" * 50_000 + b"x" + b"</a>" * 50_000)
