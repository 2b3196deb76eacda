"""E-mail: .eml and Outlook's .msg. Who wrote to whom, when and about what, the words, and the names of what was attached."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from email.message import EmailMessage, Message
from typing import Any

from index.errors import UnreadableDocument
from index.formats.text import decode
from index.types import Reading, Span

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_TELLING = ("From", "To", "Date", "Subject", "Received", "Message-ID", "MIME-Version", "Content-Type")
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_RICH_TEXT = 0x1009
"""The property of a .msg that holds its words as compressed RTF (MS-OXPROPS, PidTagRtfCompressed)."""


def eml(content: bytes) -> Reading:
    """A message as it was sent (RFC 5322); its title is its subject. What has no headers is read as the text that it is."""
    from email import message_from_bytes, policy

    try:
        message: Any = message_from_bytes(content, policy=policy.default)
        if not any(name in message for name in _TELLING):
            return Reading(decode(content))
        body, furniture = _body(message)
        names = [_name(part) for part in message.iter_attachments()] if message.is_multipart() else []
    except UnreadableDocument:
        raise
    # The standard library's parser raises IndexError, AttributeError, RecursionError and more on crafted messages.
    except Exception:
        raise UnreadableDocument("it is damaged: it cannot be read as an e-mail") from None
    if body is None:
        raise UnreadableDocument("it is encrypted; save it decrypted")
    return _assembled([(name, _header(message, name)) for name in _HEADERS], body, furniture, names)


def _header(message: Message[str, str], name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    # A header that breaks the rules in a way of its own makes the parser raise; as it stands it is better than nothing.
    except Exception:
        return next((" ".join(str(value).split()) for key, value in message.raw_items() if key.lower() == name.lower()), "")


def _body(message: EmailMessage) -> tuple[str | None, Sequence[Span]]:
    """The message's own words: plain where it has them so, else those of its web page. None when they are encrypted."""
    if message.get_content_type() in _ENCRYPTED and message.get_param("smime-type") != "signed-data":
        return None, ()
    plain = message.get_body(preferencelist=("plain",))
    text = _decoded(plain) if plain is not None else ""
    page = message.get_body(preferencelist=("html",))
    if text.strip() or page is None:
        return text, ()
    return _words(_decoded(page))


def _decoded(part: Message) -> str:
    """A part's text, in the encoding that it states or else in the one that its bytes suggest."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return decode(payload)


def _words(page: str) -> tuple[str, Sequence[Span]]:
    from index.formats.web import html

    reading = html(b"\xef\xbb\xbf" + page.encode("utf-8", "replace"))
    return reading.text, reading.furniture


def _name(part: Message) -> str:
    name = part.get_filename()
    return " ".join(str(name).split()) if name else f"one without a name ({part.get_content_type()})"


def msg(content: bytes) -> Reading:
    """A message as Outlook saves it; its title is its subject. One whose words are there as RTF alone is refused with that reason."""
    from email.header import decode_header, make_header

    from oxmsg import Message as OutlookMessage

    try:
        message = OutlookMessage.load(io.BytesIO(content))
        sent = message.sent_date
        headers = [
            ("From", str(make_header(decode_header(message.sender or "")))),
            ("To", ", ".join(_addressees(message.recipients))),
            ("Date", format(sent, "%a, %d %b %Y %H:%M:%S %z") if sent else ""),
            ("Subject", message.subject),
        ]
        body: str = message.body or ""
        furniture: Sequence[Span] = ()
        if not body.strip() and message.html_body:
            body, furniture = _words(message.html_body)
        rich = not body.strip() and message.properties.binary_prop_value(_RICH_TEXT)
        names = [attachment.file_name or "one without a name" for attachment in message.attachments]
    except UnreadableDocument:
        raise
    # oxmsg lets through whatever its OLE reader, its decoders and its arithmetic stumble over.
    except Exception:
        raise UnreadableDocument("it is damaged: it cannot be read as an Outlook message") from None
    if rich:
        raise UnreadableDocument("its words are kept as RTF alone, which cannot be read; save it as .eml or as plain text")
    return _assembled(headers, body, furniture, names)


def _addressees(recipients: Iterable[Any]) -> list[str]:
    """Names with addresses, each once: Outlook notes a recipient in several places."""
    found = []
    for recipient in recipients:
        name, address = recipient.name.strip(), recipient.email_address.strip()
        found.append(f"{name} <{address}>" if name and address and name != address else name or address)
    return list(dict.fromkeys(filter(None, found)))


def _assembled(headers: Sequence[tuple[str, str]], body: str, furniture: Sequence[Span], names: Sequence[str]) -> Reading:
    head = "".join(f"{name}: {clean}\n" for name, value in headers if (clean := " ".join(value.split())))
    text = head + ("\n" if head else "")
    # Leading empty lines stay: the furniture of a page is counted from its beginning.
    furniture = tuple(Span(span.start + len(text), span.end + len(text)) for span in furniture)
    text += re.sub(r"\r\n?", "\n", body) if not furniture else body
    if names:
        text = f"{text.rstrip()}\n\nAttachments: {', '.join(f'{name} (not read)' for name in names)}"
    subject = next((" ".join(value.split()) for name, value in headers if name == "Subject"), "")
    return Reading(text, subject or None, (), furniture)
