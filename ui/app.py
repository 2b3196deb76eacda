"""The chat page and the document view, added to a web application. The only module that knows Gradio."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.routing import Mount

from index.errors import CitewellError, OverLimit
from rag.awaitable import batches
from rag.conversations import Verdict
from rag.types import Event, Token
from ui import kept as kept_conversations
from ui import render
from ui.chat import Answering, Assistant, Choice, Conversation, Service, Waiting
from ui.sessions import LEFT_SECONDS, own_sessions
from ui.stubs import without_stubs
from ui.web import conversation_routes, document_routes, guarded, head_html, library_routes

with without_stubs():
    import gradio as gr
    from gradio.blocks import Block

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
TITLE = "Citewell"
DESCRIPTION = "Answers from your documents, with the exact words that bear them out."
UNEXPECTED = "Something went wrong, and the answer could not be finished. Your question is still here: try it again."
ANSWERS_AT_ONCE = 4
STATUS_SECONDS = 4.0
SESSIONS = 1_000
"""So many tabs are remembered, of all users together; the one that was unused longest is forgotten, and begins anew with its kept conversation. Whoever opens a
page and never says that it is there is forgotten only so."""
LISTENING_SECONDS = 0.5
"""How often a question that waits looks how many are before it. Gradio ends what nobody listens to any more only when that says something, so it also
says so often that nothing is new."""
REDRAWN_SECONDS = 0.15
"""How long a draft stands before more of it is shown. The page and the server draw it anew each time, which is too much work for each single token."""

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
FONTS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]

App = TypeVar("App", bound=Starlette)
Updates = dict[Any, Any]


def mount(app: App, service: Service) -> App:
    """Add the views at /documents/{id}, the library at /library and the chat page at / to `app`; call it after every other route is there."""
    parts = ("page", "library", "conversations")
    style = "\n".join((HERE / f"{name}.css").read_text(encoding="utf-8") for name in parts)
    script = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("compiled", "events", *parts))
    app.router.routes.extend([*document_routes(service, style), *library_routes(service), *conversation_routes(service)])
    page = chat_page(service)
    gr.mount_gradio_app(
        app,  # it asks for a FastAPI, and uses nothing that Starlette has not
        page,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        favicon_path=str(HERE / "favicon.svg"),
        show_error=False,
        max_file_size="25mb",
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]),
    )
    mounted = next(route for route in reversed(app.router.routes) if isinstance(route, Mount))

    def forget(session: str) -> bool:
        held = page.state_holder
        used = held.time_last_used.get(session)
        if used is not None and (datetime.now() - used).total_seconds() < LEFT_SECONDS:
            return False
        held.session_data.pop(session, None)
        held.time_last_used.pop(session, None)
        return True

    mounted.app = guarded(own_sessions(mounted.app, service, forget), head_html(TITLE, DESCRIPTION, style, script))
    return app


# The chat page


def sparing(whole: Callable[..., Awaitable[list[Any]]]) -> Callable[..., Awaitable[list[Any]]]:
    """Gradio's way from what a handler gives to what a browser is sent, `whole`, but what an event leaves as it is costs nothing: Gradio would make each
    such component anew, for every few words of a draft."""

    async def changed(block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        if not isinstance(predictions, dict) or not all(isinstance(part, Block) for part in predictions) or len(block_fn.outputs) < 2:
            return await whole(block_fn, predictions, state)
        named = {part._id: value for part, value in predictions.items()}
        sent = [part for part in block_fn.outputs if part._id in named]
        if len(sent) < len(named):  # Gradio says what is wrong with a part that the event has not
            return await whole(block_fn, predictions, state)
        narrowed = copy(block_fn)
        narrowed.outputs = sent
        values = [named[part._id] for part in sent]
        made = await whole(narrowed, values[0] if len(sent) == 1 else values, state) if sent else []
        by_part = {part._id: value for part, value in zip(sent, made, strict=True)}
        return [by_part[part._id] if part._id in by_part else None if part.stateful else gr.skip() for part in block_fn.outputs]

    return changed


def chat_page(service: Service) -> gr.Blocks:
    """The page and its wiring: what is shown follows from one Conversation, which each tab has its own of."""
    page: gr.Blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True)
    page.postprocess_data = sparing(page.postprocess_data)
    with page, gr.Column(elem_id="citewell"):
        masthead = gr.HTML(render.masthead_html(), elem_id="masthead", js_on_load=None, apply_default_css=False)
        status = panel("status")
        with gr.Column(elem_id="columns"):
            with gr.Column(elem_id="chat"):
                gr.HTML(render.earlier_place_html(), elem_id="earlier", js_on_load=None, apply_default_css=False)
                welcome = panel("welcome", js_on_load="ask on click")
                transcript, running = panel("transcript", js_on_load="judge on click"), panel("running")
            with gr.Column(elem_id="beside"):
                evidence = panel("evidence")
                gr.HTML(render.work_place_html(), elem_id="work", js_on_load=None, apply_default_css=False)
                documents = panel("documents", js_on_load="list on change")
            with gr.Column(elem_id="composer"):
                gr.HTML(render.unreachable_html(), elem_id="unreachable", js_on_load=None, apply_default_css=False)
                chosen = panel("choice", js_on_load="choose")
                with gr.Row(elem_id="ask"):
                    question = gr.Textbox(
                        label="Your question", placeholder="Ask about your documents", lines=1, max_lines=8, autofocus=True, container=False
                    )
                    send = gr.Button("Send", elem_id="send", variant="primary")
                    stop = gr.Button("Stop", elem_id="stop", visible=False)
                with gr.Row(elem_id="tools"):
                    gr.HTML(render.composer_hint_html(), elem_id="hint", js_on_load=None, apply_default_css=False)
                    retry = gr.Button("Retry", elem_id="retry", visible=False)
                    clear = gr.Button("New conversation", elem_id="clear", visible=False)
        # None until the page has been opened here: a tab that asks without that was opened at a server that has since been started again.
        conversation, choice = gr.State(None), gr.State(Choice())
        clock = gr.Timer(STATUS_SECONDS)

        def own(request: gr.Request) -> Assistant:
            return service.own(request.request.scope)

        def kept(value: Conversation, request: gr.Request) -> Conversation:
            return kept_conversations.keep(service.conversations, service.user(request.request.scope).id, value)

        def shown(value: Conversation, request: gr.Request, settled: bool = False) -> Updates:
            """Everything that follows from the conversation. Only once it is settled, by an event that comes after the question's, can anything be done with
            it: until then Gradio would let a second question fall, and what is still to come would undo any other change."""
            return {
                conversation: value,
                welcome: "" if value.finished or value.running else render.welcome_html(own(request).starters()),
                transcript: render.transcript_html(value),
                running: render.running_html(value.running),
                evidence: render.evidence_html(value.latest),
                **buttons(value, settled),
            }

        def buttons(value: Conversation, settled: bool) -> Updates:
            idle = value.running is None
            settled = settled and idle
            return {
                send: gr.update(visible=idle, interactive=settled),
                stop: gr.update(visible=not idle),
                retry: gr.update(visible=settled and value.own and bool(value.finished)),
                clear: gr.update(visible=settled and bool(value.finished)),
            }

        def state(request: gr.Request) -> Updates:
            """How the model and the store stand."""
            assistant = own(request)
            now, notices = assistant.model_status(), assistant.store.notices()
            waiting = now.state not in ("ready", "none") or bool(notices) or assistant.store.index_state == "opening"
            return {status: render.status_html(now.message, *notices), clock: gr.update(active=waiting)}

        def told(now: Choice, total: int) -> Updates:
            """Everything that follows from the choice of documents, of which there are `total`."""
            return {choice: now, chosen: render.choice_html(now, total)}

        def choose(before: Choice, event: gr.EventData, request: gr.Request) -> Updates:
            store = own(request).store
            ids = [document_id for document_id in event.documents if isinstance(document_id, str)]
            wanted = Choice({document_id: before.chosen.get(document_id, "A document") for document_id in ids}, (), int(event.turn))
            return told(wanted.checked(store.info), store.document_count())

        async def ask(text: str, before: Conversation | None, wanted: Choice, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
            if before is None:
                yield {running: render.forgotten_html()}
                return
            typed: Updates = {}
            trigger = getattr(event.target, "elem_id", None)  # not the component itself: once updated, a session has its own copy
            assistant = own(request)
            of = wanted.checked(assistant.store.info)
            news = told(of, assistant.store.document_count()) if of != wanted else {}
            titles, ids = tuple(of.chosen.values()), tuple(of.chosen)
            if before.running is not None:
                now = None
            elif wanted.chosen and not of.chosen:
                # All that was chosen is gone: the question stays where it is, and goes to all documents only when it is sent again.
                yield news
                return
            elif trigger == "retry":
                now = before.retrying(titles, ids) if before.finished else None
            elif trigger == "welcome":
                now = before.asking(str(event.question), titles, ids)
            else:
                now, typed = before.asking(text.strip(), titles, ids) if text.strip() else None, {question: ""}
            if now is None or now.running is None:
                yield {question: gr.skip()}  # a generator that ends without a value would clear every output
                return
            if not before.own:
                yield {running: render.refused_html(kept_conversations.READ_ONLY)}
                return
            asked_now = now.running.question
            yield {**shown(now, request), **typed, **news}
            problem = UNEXPECTED
            try:
                answering = service.stream("page", assistant, asked_now, now.history(), of.documents)
                async with aclosing(events_of(answering)) as events:
                    async for came in events:
                        if came is None:
                            yield {running: gr.skip()}
                            continue
                        now = now.after(came)
                        if now.running is None:
                            # Shown before it is kept: whatever goes wrong there, the answer is there and nothing is left to stop.
                            yield shown(now, request)
                            now = await asyncio.to_thread(kept, now, request)
                        passing = isinstance(came, Token | Waiting)
                        # All of it, although little may have changed: of updates that come close together the browser can pass over all but the last.
                        yield {conversation: now, running: render.running_html(now.running)} if passing else shown(now, request)
            except OverLimit as error:
                # Nothing was asked: all is as before, and the question is where it can be sent again.
                again = {} if trigger == "retry" else {question: asked_now}
                yield {**shown(before, request), **again, running: render.refused_html(str(error))}
                return
            except CitewellError as error:
                problem = str(error)
            except Exception:
                log.exception("A question could not be answered")
            if now.running is not None:
                yield shown(now.failed(problem), request)

        def judge(before: Conversation | None, event: gr.EventData, request: gr.Request) -> Updates:
            if before is None:
                return {running: render.forgotten_html()}
            user, key, said = service.user(request.request.scope), str(event.key), str(event.case)
            exchange = before.answered(key)
            # While a question runs, or its answer is being kept, what it makes of the conversation would undo this.
            if exchange is None or before.running is not None or not (exchange.kept or exchange.note):
                return {conversation: gr.skip()}
            reason = getattr(event, "reason", exchange.reason)
            verdicts: dict[str, Verdict] = {"right": "right", "keep": "wrong", "drop": ""}
            verdict = verdicts.get(said, exchange.verdict)
            # Cases lie in the data folder, for whoever runs Citewell: what several people ask is not mixed there.
            folder = own(request).settings.data_dir if service.open else None
            now = kept_conversations.judge(service.conversations, user.id, folder, before, key, verdict, str(reason).strip() if verdict else "")
            return {conversation: now, transcript: render.transcript_html(now)} if now is not before else {conversation: gr.skip()}

        def listed(before: Choice, request: gr.Request) -> Updates:
            store = own(request).store
            total, latest = store.document_count(), store.latest(render.LATEST)
            return {documents: render.documents_html(latest, total), **state(request), **told(before.checked(store.info), total)}

        def opened(request: gr.Request) -> Updates:
            user, wanted = service.user(request.request.scope), request.request.query_params.get("conversation", "")
            assistant = own(request)
            folder = assistant.settings.data_dir if service.open else None
            value = kept_conversations.bring_back(service.conversations, assistant.store, user.id, wanted, folder) if wanted else Conversation()
            return {
                masthead: render.masthead_html("" if service.open else user.name),
                **shown(value, request, settled=True),
                **listed(Choice(), request),
            }

        def stopped(value: Conversation | None, request: gr.Request) -> Updates:
            return shown((value or Conversation()).stopped(), request, settled=True)

        def settled(value: Conversation | None) -> Updates:
            # After Stop this comes beside `stopped`, which says it where this was too early to.
            idle = value is None or value.running is None
            return buttons(value or Conversation(), settled=True) if idle else {send: gr.skip()}

        def cleared(request: gr.Request) -> Updates:
            return shown(Conversation(), request, settled=True)

        parts: list[Any] = [conversation, welcome, transcript, running, evidence, send, stop, retry, clear]
        around: list[Any] = [documents, status, clock, choice, chosen]
        page.load(opened, None, [masthead, *parts, *around], **HIDDEN)
        clock.tick(state, None, [status, clock], queue=False, **HIDDEN)
        documents.click(listed, choice, around, queue=False, trigger_mode="multiple", **HIDDEN)
        # The script sends the next change only once this one is answered: see library.js.
        chosen.click(choose, choice, [choice, chosen], queue=False, trigger_mode="multiple", **HIDDEN)
        triggers = [send.click, question.submit, welcome.click, retry.click]
        # One event for all four, so that none of them starts a second question. Waiting for a place happens in `ask`, where it can be shown.
        asked = gr.on(
            triggers, ask, [question, conversation, choice], [*parts, question, choice, chosen], trigger_mode="once", concurrency_limit=None, **HIDDEN
        )
        # No sooner than this event is the one before it over for the browser too. It asks nothing of the store, which may be away.
        asked.then(settled, conversation, [send, stop, retry, clear], **HIDDEN)
        asked.then(listed, choice, around, **HIDDEN)
        # A cancelled event counts as failed, once it has ended. A handler of the click itself would run while the answer is still being written.
        stop.click(None, cancels=[asked], api_visibility="private")
        asked.failure(stopped, conversation, parts, **HIDDEN)
        transcript.click(judge, conversation, [conversation, transcript, running], **HIDDEN)
        clear.click(cleared, None, parts, **HIDDEN)
    # Gradio would summarize its last 10,000 events with pandas after each one, for a monitoring page that is off.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    page.state_session_capacity = SESSIONS
    page.queue(max_size=None, default_concurrency_limit=ANSWERS_AT_ONCE)
    # Gradio would begin 40 events at most, and keep all others, the opening of a page too, waiting without a word. How many questions there are room for,
    # the service says, with an answer that can be read; how many requests, the rate.
    page._queue.max_thread_count = service.places + SESSIONS
    return page


def panel(name: str, **options: Any) -> gr.HTML:
    """An empty place for our own HTML, without Gradio's styles."""
    return gr.HTML("", elem_id=name, apply_default_css=False, **{"js_on_load": None, **options})


async def events_of(answering: Answering) -> AsyncGenerator[Event | Waiting | None]:
    """The events of an answer, with tokens that came together joined, how many questions are before it whenever that has changed, and None while nothing
    comes. Closing this closes the answer, also while it waits for the model.
    """
    ahead, spoken = 0, False
    async with aclosing(batches(answering)) as made:
        coming: asyncio.Future[list[Event]] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(made, []))
                if not (await asyncio.wait((coming,), timeout=LISTENING_SECONDS))[0]:
                    now = answering.ahead
                    yield None if spoken or now == ahead else Waiting(now)
                    ahead = now
                    continue
                came, coming = coming.result(), None
                if not came:
                    return
                spoken = spoken or any(isinstance(event, Token) for event in came)
                for event in joined(came):
                    yield event
                if isinstance(came[-1], Token):
                    await asyncio.sleep(REDRAWN_SECONDS)
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait((coming,))


def joined(items: Iterable[Event]) -> Iterator[Event]:
    """The same items with neighbouring tokens made one, so that a fast model does not redraw the page for each."""
    held: Token | None = None
    for item in items:
        if isinstance(item, Token):
            held = Token(held.text + item.text) if held else item
            continue
        if held:
            yield held
        held = None
        yield item
    if held:
        yield held
