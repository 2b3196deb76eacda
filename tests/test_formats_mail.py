"""Tests of index.formats.mail: the words and the head of a message, whatever it is encoded in; and reasons for what cannot be read."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from conftest import BENCH

from index.errors import UnreadableDocument
from index.formats.archive import OLE
from index.formats.mail import eml, msg
from index.read import read
from index.split import split


def message(body: str = "Dear Bob,\n\nthe lift is mended.\n", subject: str = "The lift – mended") -> EmailMessage:
    made = EmailMessage()
    made["From"] = "Ann Müller <ann@example.org>"
    made["To"] = "Bob <bob@example.org>, Cid <cid@example.org>"
    made["Date"] = "Fri, 01 Mar 2024 09:30:00 +0100"
    made["Subject"] = subject
    made.set_content(body)
    return made


def test_a_message_is_its_head_and_its_words() -> None:
    reading = eml(message().as_bytes())
    assert reading.title == "The lift – mended"
    assert reading.text == (
        "From: Ann Müller <ann@example.org>\nTo: Bob <bob@example.org>, Cid <cid@example.org>\nDate: Fri, 01 Mar 2024 09:30:00 +0100\n"
        "Subject: The lift – mended\n\nDear Bob,\n\nthe lift is mended.\n"
    )


def test_plain_words_are_preferred_and_a_web_page_is_read_where_there_are_none() -> None:
    both = message()
    both.add_alternative("<p>the lift is <b>mended</b> as a page</p>", subtype="html")
    assert "as a page" not in eml(both.as_bytes()).text
    page = message()
    page.set_content("<html><body><p>The lift is <b>mended</b> &amp; painted.</p><script>no()</script></body></html>", subtype="html")
    text = eml(page.as_bytes()).text
    assert "The lift is mended & painted." in text
    assert "<" not in text.split("\n\n", 1)[1]
    assert "no()" not in text


def test_attachments_are_named_and_not_read() -> None:
    made = message()
    made.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Bericht März.pdf")
    made.add_attachment("x", subtype="plain")
    assert eml(made.as_bytes()).text.endswith("mended.\n\nAttachments: Bericht März.pdf (not read), one without a name (text/plain) (not read)")


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-8", "windows-1252"])
def test_every_encoding_is_read_as_stated(charset: str) -> None:
    made = message()
    made.set_content("Grüße aus Köln", charset=charset)
    assert "Grüße aus Köln" in eml(made.as_bytes()).text


def test_unknown_and_wrong_encodings_are_told_from_the_bytes() -> None:
    for stated in (b"x-nonsense", b"us-ascii", b"utf-8"):
        content = b'From: a@b.c\nContent-Type: text/plain; charset="' + stated + b'"\n\n' + "Grüße aus Köln".encode("cp1252")
        assert eml(content).text.endswith("Grüße aus Köln")


def test_what_has_no_head_is_the_text_that_it_is() -> None:
    assert eml(b"Just some words.\nAnd more.").text == "Just some words.\nAnd more."
    with pytest.raises(UnreadableDocument, match="binary"):
        eml(b"\x00\x01\x02")


def test_encrypted_messages_say_so() -> None:
    content = (
        b"From: a@b.c\nMIME-Version: 1.0\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\nContent-Transfer-Encoding: base64\n\nAAAA"
    )
    with pytest.raises(UnreadableDocument, match="encrypted"):
        eml(content)


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: =?utf-8?B?/////?=\nFrom: =?x?q?=?= <<<>>>\nDate: yesterday\n\nwords",
        b"From: a@b.c\nContent-Type: multipart/mixed\n\nno boundary",
        b"From: a@b.c\nContent-Type: multipart/mixed; boundary=x\n\n--x\n--x\n--x--",
        b"From: " + b"(" * 5000 + b"\n\nwords",
        b"From: a@b.c\nContent-Transfer-Encoding: base64\n\n!!!!not base64!!!!",
        b"To: " + b"a@b.c, " * 3000 + b"\n\nwords",
        b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (level, level) for level in range(3000)),
        b"Subject: a\rb\x0cc\n\nwords",
    ],
    ids=range(8),
)
def test_crafted_messages_are_read_or_refused(content: bytes) -> None:
    try:
        document = read(content, "crafted.eml", "root")
    except UnreadableDocument as refused:
        assert "it " in str(refused)  # noqa: PT017
        return
    assert all(document.text[passage.span.start : passage.span.end] == passage.text for passage in split(document))


def test_an_outlook_message_is_read_alike() -> None:
    samples = sorted((BENCH / "files").rglob("*.msg"))
    if not samples:
        pytest.skip("no sample files: set CITEWELL_BENCH to the folder of public sets")
    reading = msg(samples[0].read_bytes())
    assert reading.title == "Test Email Message"
    assert reading.text.startswith("From: ")
    assert "\nDate: Sun, 22 Dec 2024 08:23:00 +0000\n" in reading.text
    assert "This is the body of the test email message" in reading.text


def test_a_damaged_outlook_message_says_so() -> None:
    with pytest.raises(UnreadableDocument, match="damaged"):
        read(OLE + bytes(2000), "broken.msg", "root")
