"""Furniture: the parts of a page that are no content, such as menus, sign-up forms and lists of other stories. Pure.

Furniture stays in the stored text and is not searched, so the error that costs is content taken for furniture: what is in doubt is content.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.types import Span

if TYPE_CHECKING:
    from lxml.etree import _Element

    from index.formats.flow import Part

_ELEMENTS = {"nav": "menu", "footer": "footer", "aside": "aside", "form": "form", "header": "header", "dialog": "window", "menu": "menu"}
_ROLES = {
    "navigation": "menu", "menu": "menu", "menubar": "menu", "contentinfo": "footer", "complementary": "aside", "search": "form",
    "form": "form", "banner": "header", "dialog": "window", "alertdialog": "window", "toolbar": "menu", "tablist": "menu",
}  # fmt: skip
_NAMED = re.compile(
    r"""(?<![a-z])(?:nav(?:bar|box|igation)?|menus?|breadcrumbs?|sidebar|footer|cookies?|consent|newsletter|subscribe|subscription|sign-?up|log-?in|share|
    sharing|social|related|recommend(?:ed|ations?)|adverts?|advertisement|ads?|promo(?:tion)?|popup|modal|pagination|pager|paginator|skip(?:-?link)?|
    comment-?form|masthead|toolbar|cat-?links)(?![a-z])""",
    re.VERBOSE,
)
"""Names that page builders give to furniture, looked for in an element's class and id."""
_CONTENT = frozenset(("html", "body", "main", "article"))


@dataclass(slots=True)
class Region:
    """A part of a page that its elements mark as possible furniture. `kind` is what it is marked as, `parent` the region around it (-1: none)."""

    kind: str
    parent: int

    @staticmethod
    def of(element: _Element, name: str) -> str:
        """What an element marks its inside as; empty where it says nothing."""
        if name in _CONTENT:
            return ""
        kind = _ROLES.get(element.get("role", "")) or _ELEMENTS.get(name, "")
        if kind in ("footer", "header") and any(
            isinstance(up.tag, str) and up.tag in ("article", "section", "blockquote", "main", "figure") for up in element.iterancestors()
        ):
            # The heading and the last lines of an article, not of the site.
            return ""
        if kind:
            return kind
        names = f"{element.get('class', '')} {element.get('id', '')}"
        # `footerLinks` and `footer_links` are named as `footer-links` is.
        return "named" if len(names) > 1 and _NAMED.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", names[:500]).lower()) else ""


def furniture_of_page(parts: Sequence[Part], spans: Sequence[Span], regions: Sequence[Region], extracted: str) -> tuple[Span, ...]:
    """The spans of a web page's furniture, from what its elements say and from `extracted`, another judge's idea of the content ('' if it has none)."""
    total = sum(len(part.text) for part in parts)
    told = [_is_sentence(part.text) for part in parts]
    kinds = _kinds(parts, told, regions, total)
    sequences = {size: set(_sequences(_words(extracted), size)) for size in (1, 2, 3)}
    kept = [_share_in(sequences, part.text) >= 0.7 for part in parts]
    judged = sum(len(part.text) for part, judged_kept in zip(parts, kept, strict=True) if judged_kept)
    # A judge that found next to nothing has misread the page.
    trusted = judged >= max(200, total // 10)
    main = [number for number, part in enumerate(parts) if kept[number] and told[number] and part.kind != "table"]
    marked = [
        _is_furniture(
            part,
            kinds[part.region] if part.region >= 0 else _NOTHING,
            kept[number],
            told[number],
            trusted,
            bool(main) and main[0] <= number <= main[-1],
        )
        for number, part in enumerate(parts)
    ]
    for number, left_below in enumerate(_sections_left(parts, marked)):
        if left_below is not None and not parts[number].text.startswith("# "):
            # A heading goes with what stands under it.
            marked[number] = not left_below
    left = sum(len(part.text) for part, furniture in zip(parts, marked, strict=True) if not furniture)
    if left < min(200, total // 2):
        # A page of nothing but furniture is a page about it, such as a list of links.
        return ()
    return merged(span for span, furniture in zip(spans, marked, strict=True) if furniture)


_NOTHING: frozenset[str] = frozenset()


def _kinds(parts: Sequence[Part], told: Sequence[bool], regions: Sequence[Region], total: int) -> list[frozenset[str]]:
    """What each region, and those around it, are marked as.

    A region that holds most of the page is the page, whatever it is called, and one that tells things in sentences is a box with content.
    """
    characters = [0] * len(regions)
    telling = [0] * len(regions)
    for part, tells in zip(parts, told, strict=True):
        if part.region >= 0:
            characters[part.region] += len(part.text)
            telling[part.region] += len(part.text) if tells and not _asks_for_something(part.text) else 0
    for number in range(len(regions) - 1, -1, -1):
        if regions[number].parent >= 0:
            characters[regions[number].parent] += characters[number]
            telling[regions[number].parent] += telling[number]
    kinds: list[frozenset[str]] = []
    for region, size, tells_in in zip(regions, characters, telling, strict=True):
        around = kinds[region.parent] if region.parent >= 0 else _NOTHING
        is_box = region.kind in ("aside", "form", "header", "named") and tells_in * 4 > size
        kinds.append(around if size * 2 > total or is_box else around | {region.kind})
    return kinds


def _is_furniture(part: Part, kinds: frozenset[str], kept: bool, told: bool, trusted: bool, within: bool) -> bool:
    """Whether a part of a page is furniture: `kept` by the other judge, `told` in a sentence, `within` the run of kept sentences."""
    links = part.linked * 10 > len(part.text) * 6
    if part.kind == "heading" and part.text.startswith("# "):
        return False
    if kinds & {"menu", "footer"}:
        return not (kept and told) if trusted else not told
    if kinds & {"window", "aside", "form", "header"}:
        return (not kept or (links and not told)) if trusted else not told
    if part.kind in ("table", "code"):
        return False
    if kinds:
        return (not kept and trusted) or (links and not told)
    return trusted and links and not kept and not told and not within


def _sections_left(parts: Sequence[Part], marked: Sequence[bool]) -> list[bool | None]:
    """For each heading, whether anything under it, up to the next of its level, is left as content; None for other parts and for empty sections."""
    found: list[bool | None] = [None] * len(parts)
    # Read backwards: what each level of heading has collected below it so far.
    below: list[bool | None] = [None] * 8
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        if part.kind != "heading":
            below = [bool(left) or not marked[number] for left in below]
            continue
        level = len(part.text) - len(part.text.lstrip("#"))
        found[number] = below[level]
        for deeper in range(level, 8):
            below[deeper] = None
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _sequences(words: Sequence[str], size: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[offset:] for offset in range(size)), strict=False)


def _share_in(sequences: dict[int, set[tuple[str, ...]]], text: str) -> float:
    """How much of a text's runs of three words are among `sequences`."""
    words = _words(text)
    size = min(3, len(words))
    runs = list(_sequences(words, size)) if size else []
    return sum(run in sequences[size] for run in runs) / len(runs) if runs else 0.0


_ENDS = re.compile(r"(?<!\.)[.!?](?!\.)[\"'”’»()\[\]\d]{0,30}(?=\s|$)|[。！？]")
_SENTENCE_WORDS = 8


def _is_sentence(text: str) -> bool:
    """Whether a text tells something: eight words before a mark that ends a sentence. A teaser that breaks off in dots has no such mark."""
    start = 0
    for end in _ENDS.finditer(text):
        # No word is shorter than two characters with the space behind it, and few sentences need counting to their end.
        if len(re.findall(r"\w+", text[max(start, end.start() - 2_000) : end.start()])) >= _SENTENCE_WORDS:
            return True
        start = end.end()
    # Chinese and Japanese put no space between words.
    return len(re.findall(r"[\u3040-\u9fff]", text)) >= 20


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, with those that follow each other closely (white space between them) as one."""
    found: list[Span] = []
    for span in spans:
        if found and span.start - found[-1].end <= 2:
            found[-1] = Span(found[-1].start, span.end)
        else:
            found.append(span)
    return tuple(found)


# Texts saved from the web

_CUE_CHARACTERS = 160
"""A line longer than this is no sign-up form and no heading of a list."""
_NAMED_LISTS = r"""(?:articles?|stories|story|posts?|news|reading|content|topics?|videos?|links?|for\ you)"""
_CUES = {
    "subscribe": r"""(?:sign(?:ing)?\ up\ (?:for|to)\b|by\ signing\ up\b|by\ subscribing\b|subscribe(?:\ (?:to|now|today|for)\b|\W*$)|(?:join|get|our|free|daily|weekly|email)\b.{0,40}\bnewsletters?\b
        |newsletters?\W*$|.{0,40}\bsubscription\ form\W*$|(?:enter\ )?your\ e-?mail(?:\ address)?\W*$|.{0,40}\b(?:in|to)\ your\ inbox\W*$)""",
    "legal": r"""(?:(?:terms|conditions)\ (?:of\ (?:use|service)|(?:and|&)\ conditions)\W*$|privacy\ (?:policy|notice|and\ cookies)\W*$
        |by\ signing\ up,.{0,80}\b(?:terms|privacy)|(?:this|our)\ (?:web)?site\ uses\ cookies|we\ use\ cookies|accept\ (?:all\ )?cookies|cookie\ (?:settings|policy|preferences)\W*$)""",
    "copyright": r"""(?:.{0,80}\ball\ rights\ reserved\b|(?:copyright\ )?(?:©|\(c\))\ ?\d{4})""",
    "advertisement": r"""(?:advertise?ments?|advertorial|sponsored(?:\ content|\ post)?|promoted)\W*\w{0,10}\W*$""",
    "more": rf"""(?:(?:see|read)\ also\b|also\ read\b|read\ (?:more|next)\b|related(?:\ {_NAMED_LISTS})?\W*$|related\ {_NAMED_LISTS}\s*:|recommended(?:\ {_NAMED_LISTS})?\W*$|you\ (?:might|may)\ also\ like
        |more\ (?:from|stories|news|articles|posts)\b|latest\ {_NAMED_LISTS}\W*$|(?:top|featured|popular|recent)\ {_NAMED_LISTS}\W*$|must[\ -]reads?\W*$|trending(?:\ now|\ {_NAMED_LISTS})?\W*$
        |most\ (?:read|popular|viewed)\W*$|don['’]t\ miss\W*$|editor['’]?s['’]?\ picks?\W*$|up\ next\W*$|keep\ reading\W*$|what\ to\ read\ next\W*$)""",
    "share": r"""(?:share(?:\ (?:this|on|via|with)\b.{0,30})?\W*$|tweet(?:\ this)?\W*$|pin\ it\W*$|follow\ us\b.{0,60}$|copy\ link\W*$|(?:facebook|twitter|linkedin|whatsapp|pinterest|reddit|instagram|youtube)\W*$)""",
    "account": r"""(?:(?:sign|log)\ ?in(?:\ or\ .{0,30})?\W*$|register(?:\ now)?\W*$|create\ (?:an\ )?account\W*$|my\ account\W*$|forgot\ (?:your\ )?password\W*$)""",
    "comment": r"""(?:leave\ a\ (?:reply|comment)\b|your\ e-?mail\ address\ will\ not\ be\ published|required\ fields\ are\ marked|post\ (?:a\ )?comment\W*$|(?:no|\d+)\ comments?\W*$|view\ (?:all\ )?comments
        |join\ the\ (?:discussion|conversation)\W*$|save\ my\ name,\ e-?mail)""",
    "page": r"""(?:skip\ to\ (?:main\ )?content|jump\ to\ content|back\ to\ top|menu\W*$|search\W*$|home\W*$|toggle\ navigation|(?:open|close)\ menu|(?:previous|next|newer|older)\ (?:article|post|story)\b
        |\(?\d*\)?\ ?min(?:ute)?s?\ read\W*$)""",
}
_CUE = re.compile("|".join(f"(?P<{family}>{pattern})" for family, pattern in _CUES.items()), re.IGNORECASE | re.VERBOSE)
_MARKS = re.compile(r"^(?:[#>*+•|\-–—\s]|\(\d{1,3}\))+|!?\[(?=[^\]]*\]\()|\]\([^)\s]*\)|[*_`]{1,3}")
"""What stands around a line's words in Markdown, and the counters of forms."""
_FEW_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Line:
    span: Span
    family: str
    told: bool
    breaks_off: bool
    words: int
    heading: bool


def furniture_in(text: str) -> tuple[Span, ...]:
    """The spans of furniture in an article that was saved from the web as plain text or Markdown.

    Looks for nothing unless the text has the marks of a web page of several kinds (a sign-up form, a legal line, advertisements, lists of other
    stories): notes, documentation and minutes have none of it marked.
    """
    if len(text) > _LONGEST or len({match.lastgroup for match in _ANY_CUE.finditer(text)}) < _FAMILIES:
        return ()
    lines = list(_lines_of(text))
    families = Counter(line.family for line in lines if line.family and line.family != "copyright" and not line.heading)
    told = sum(line.told and line.words >= _SENTENCE_WORDS for line in lines)
    if len(families) < _FAMILIES or families.total() < _CUE_LINES or told < _TOLD_LINES:
        return ()
    marked: list[Span] = []
    runs = list(_runs(lines))
    for number, run in enumerate(runs):
        marked += _marked_in(run, first=number == 0, last=run[-1] is lines[-1])
    return merged(sorted(marked, key=lambda span: span.start))


_FAMILIES = 3
_CUE_LINES = 4
_TOLD_LINES = 3
"""A text is a saved page when it has this many kinds of cue, this many lines with one, and this many that tell something. Copyright and headings, as software has them, do not count."""
_LONGEST = 1_000_000
"""No saved article is longer; books, logs and data need not be searched for menus."""
_ANY_CUE = re.compile(r"^[^\w©\n]{0,12}" + _CUE.pattern.join(("(?:", ")")), re.IGNORECASE | re.VERBOSE | re.MULTILINE)


def _lines_of(text: str) -> Iterable[_Line]:
    fenced = False
    for match in re.finditer(r"[^\n\r]*\S[^\n\r]*", text):
        line = match.group().strip()
        start = match.start() + match.group().index(line[0])
        fence = line.startswith(("```", "~~~"))
        shown = _MARKS.sub("", line[:1_000]).replace("\xa0", " ").strip()
        solid = fenced or fence or "|" in line or "\t" in line or len(line) > 400
        cue = None if solid or len(shown) > _CUE_CHARACTERS else _CUE.match(shown)
        breaks_off = not solid and shown.endswith(("...", "…")) and len(shown.split()) > 4
        told = solid or (cue is None and not breaks_off and _is_sentence(shown))
        if cue and _is_sentence(shown) and cue.lastgroup not in ("subscribe", "legal", "comment"):
            # `Read more about it in the report, which we keep for you.` tells something.
            cue, told = None, True
        yield _Line(Span(start, start + len(line)), (cue.lastgroup or "") if cue else "", told, breaks_off, len(shown.split()), line.startswith("#"))
        fenced ^= fence


def _runs(lines: Sequence[_Line]) -> Iterable[list[_Line]]:
    """The runs of lines that tell nothing, between those that do."""
    run: list[_Line] = []
    for line in lines:
        if not line.told:
            run.append(line)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _marked_in(run: Sequence[_Line], *, first: bool, last: bool) -> Iterable[Span]:
    """What is furniture in one run of lines that tell nothing."""
    cues = [number for number, line in enumerate(run) if line.family]
    if not cues:
        return
    many = len(cues) > 2 and len({run[number].family for number in cues}) > 1
    if last and many and not first:
        # From its first cue to the end of the text nothing is told any more.
        for line in run[cues[0] :]:
            yield line.span
        return
    teasers = [number for number, line in enumerate(run) if line.breaks_off]
    for number, line in enumerate(run):
        listed = cues[0] < number and (line.breaks_off or (number + 1 in teasers and not line.heading))
        menu = first and many and number < cues[-1] and line.words <= _FEW_WORDS and not line.heading and number > 0
        if line.family or (listed and many) or menu:
            yield line.span


def _asks_for_something(text: str) -> bool:
    """Whether a text is a form's or a notice's, though it is a sentence."""
    return len(text) <= 2 * _CUE_CHARACTERS and bool(_CUE.match(_MARKS.sub("", text).strip()))
