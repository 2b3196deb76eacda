// What the server says of a page's events (questions, clicks) comes to Gradio's client in one stream, which is opened for the first event and closed after the last.
// The client takes it for open until it is told in so many words that it is closed, and looks at that only once the server has said that it has taken an event.
// So it opens a stream that stays silent for an event that has ended by then; where such a stream is cut (the server is started again) or one is closed just as
// one more event begins, it waits for the next event without end. Here none is opened for nothing, one that was cut says that it is closed, and one that was
// closed too early is opened again.
(() => {
  "use strict";
  const HANDED_ON = 100; // milliseconds in which the client has dealt with what it was given
  const fetched = window.fetch.bind(window);
  const begun = new Set(); // events that the server has taken, and whose end has not been heard
  const ended = new Set(); // events whose end was heard before the server's word that it has taken them
  let closing = Promise.resolve();

  const pause = () => new Promise((go) => setTimeout(go, HANDED_ON));
  const bytes = (text) => new TextEncoder().encode(text);
  const said = (message) => bytes(`data: ${JSON.stringify(message)}\n\n`);

  async function taken(asked) {
    const response = await fetched(...asked);
    const answer = response.ok ? await response.clone().json().catch(() => null) : null;
    if (answer?.event_id && !ended.delete(answer.event_id)) begun.add(answer.event_id);
    await closing; // or the client would look whether a stream is open before it hears that it is closed
    return response;
  }

  // The client's last word of a stream.
  function closed() {
    closing = pause();
    return said({ msg: "close_stream" });
  }

  // What the client is told of these messages, and whether they close the stream; what ends with them is noted.
  function read(messages) {
    // In what a message quotes, quotation marks are escaped.
    if (!/"msg": ?"(process_completed|close_stream)"/.test(messages)) return { told: messages, last: false };
    let last = false;
    const told = messages.split("\n\n").filter((message) => {
      if (!message) return false;
      const { msg, event_id } = JSON.parse(message.replace(/^data: /, ""));
      if (msg === "process_completed" && !begun.delete(event_id)) ended.add(event_id);
      if (msg === "close_stream") last = true;
      return msg !== "close_stream";
    });
    return { told: told.map((message) => `${message}\n\n`).join(""), last };
  }

  async function heard(request) {
    if (!begun.size) return new Response(closed(), { headers: { "content-type": "text/event-stream" } });
    const first = await fetched(request.clone());
    if (!first.ok || !first.body) return first;
    const text = (response) => response.body.pipeThrough(new TextDecoderStream()).getReader();
    const piece = (reader) => reader.read().catch(() => ({ done: true }));
    let reader = text(first);
    let rest = "";

    async function pull(controller) {
      const { value, done } = await piece(reader);
      if (request.signal.aborted) {
        begun.clear(); // the client has given them up
        return controller.close();
      }
      if (done) {
        const lost = [...begun]; // and not what begins from now on: the server knows nothing of the stream that the client still takes for open
        await pause();
        // Gradio tells the user so, and looks for the server.
        if (lost.length) controller.enqueue(said({ msg: "broken_connection", message: "" }));
        for (const event of lost) begun.delete(event);
        return goOn(controller);
      }
      rest += value;
      const whole = rest.lastIndexOf("\n\n") + 2;
      if (whole < 2) return pull(controller);
      const { told, last } = read(rest.slice(0, whole));
      rest = rest.slice(whole);
      if (told) controller.enqueue(bytes(told));
      if (!last) return told ? undefined : pull(controller);
      // To its end: where a stream is cut off, the server lets go of all of the page's events.
      const drained = async (reader) => { while (!(await piece(reader)).done); };
      await Promise.race([drained(reader), pause()]);
      return goOn(controller);
    }

    // After a stream's end: with another, where an event has begun that it said nothing of.
    async function goOn(controller) {
      if (!begun.size) {
        controller.enqueue(closed());
        return controller.close();
      }
      const again = await fetched(request.clone()).catch(() => null);
      reader = again?.ok ? text(again) : { read: async () => ({ done: true }), cancel: async () => {} };
      rest = "";
      return pull(controller);
    }

    const body = new ReadableStream({ pull, cancel: () => reader.cancel().catch(() => {}) });
    return new Response(body, { status: first.status, headers: first.headers });
  }

  window.fetch = (...asked) => {
    const { pathname } = new URL(asked[0].url ?? asked[0], location.href);
    if (pathname.endsWith("/gradio_api/queue/join")) return taken(asked);
    if (pathname.endsWith("/gradio_api/queue/data") && asked[0] instanceof Request) return heard(asked[0]);
    return fetched(...asked);
  };
})();
