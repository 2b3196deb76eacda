// The chat page's behaviour in the browser: documents open in a dialog, seconds are counted, the newest words stay in view.
// Listeners sit on the document, so they outlive every re-rendering.
(() => {
  "use strict";
  let dialog = null;
  let opened = 0;

  function reader() {
    if (dialog) return dialog;
    dialog = document.createElement("dialog");
    dialog.className = "reader";
    dialog.setAttribute("aria-labelledby", "document-title");
    dialog.innerHTML = '<div class="bar"><a target="_blank" rel="noopener">Open in a new tab</a><button type="button">Close</button></div><div class="content"></div>';
    dialog.querySelector("button").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      opened += 1;
      dialog.querySelector(".content").replaceChildren();
      // The list that the link stood in may have been drawn anew meanwhile.
      const opener = dialog.opener?.isConnected ? dialog.opener : document.querySelector(`a[href="${CSS.escape(dialog.opener?.getAttribute("href") ?? "")}"]`);
      opener?.focus({ preventScroll: true });
    });
    document.body.append(dialog);
    return dialog;
  }

  async function open(link) {
    const box = reader();
    const content = box.querySelector(".content");
    const turn = (opened += 1);
    if (!box.open) box.opener = link;
    box.querySelector("a").href = link.href;
    content.innerHTML = '<p class="hint" role="status">Opening the document…</p>';
    if (!box.open) box.showModal();
    const address = new URL(link.href);
    address.searchParams.set("fragment", "1");
    let html = '<article class="document problem"><h2 id="document-title">The document could not be loaded</h2><p>The server did not answer. Try again in a moment.</p></article>';
    try {
      const response = await fetch(address);
      // Only our own view marks its answers as HTML; anything else, such as a proxy's error, is not put into the page.
      if (response.headers.get("content-type")?.startsWith("text/html") && [200, 400, 404, 409].includes(response.status)) html = await response.text();
    } catch { /* the message above stands */ }
    if (turn !== opened) return;
    content.innerHTML = html;
    const quote = content.querySelector("#quote");
    quote?.scrollIntoView({ block: "center" });
    // Blocks of a long text get their real height only once they are in sight; the second look lands on the final place.
    requestAnimationFrame(() => quote?.scrollIntoView({ block: "center" }));
    (quote ?? content.querySelector(".text, .picture") ?? box.querySelector("button")).focus({ preventScroll: true });
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href*="/documents/"]:not([target])');
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    open(link);
  });

  // Buttons of the composer come and go under the pointer; whoever has a keyboard goes on typing.
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#composer button, .starter") && matchMedia("(pointer: fine)").matches) document.querySelector("#ask textarea")?.focus();
  });

  // An answer's verdict is drawn anew once it is kept or taken back; whoever pressed its button stays there.
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("[data-case]");
    if (!pressed) return;
    const other = `[data-key="${CSS.escape(pressed.dataset.key)}"]:not([data-case="${pressed.dataset.case}"])`;
    const watch = new MutationObserver(() => {
      const button = document.querySelector(other);
      if (button) { button.focus({ preventScroll: true }); watch.disconnect(); }
    });
    watch.observe(document.querySelector("#transcript"), { subtree: true, childList: true });
    setTimeout(() => watch.disconnect(), 10000);
  });

  // The seconds since a question was sent, counted here so that waiting costs the server nothing.
  const started = new Map();
  setInterval(() => {
    const run = document.querySelector("[data-run]");
    if (!run) return started.clear();
    if (!started.has(run.dataset.run)) started.set(run.dataset.run, Date.now());
    const seconds = Math.round((Date.now() - started.get(run.dataset.run)) / 1000);
    const counter = run.querySelector(".elapsed");
    if (counter) counter.textContent = seconds ? `${seconds} s` : "";
  }, 250);

  // Follow the conversation while the reader is at its end, but never past its last question: an answer is read from its beginning.
  let followed = "";
  let atEnd = true;
  const end = () => Math.max(...["#transcript", "#running"].map((part) => document.querySelector(part)?.getBoundingClientRect().bottom ?? 0));
  const top = () => document.querySelector("#composer")?.getBoundingClientRect().top ?? window.innerHeight;
  let lastY = 0;
  addEventListener("scroll", () => {
    if (scrollY < lastY) atEnd = false; // scrolled back to read something
    if (end() <= top() + 80) atEnd = true;
    lastY = scrollY;
  }, { passive: true });
  new MutationObserver(() => {
    const run = document.querySelector("[data-run]");
    const asked = run?.dataset.run ?? "";
    if (asked && asked !== followed) atEnd = true;
    if (asked) followed = asked;
    const exchange = run ?? [...document.querySelectorAll("#transcript .exchange")].pop();
    const header = Math.max(0, document.querySelector("#masthead")?.getBoundingClientRect().bottom ?? 0);
    const room = exchange ? exchange.getBoundingClientRect().top - header - 16 : 0;
    const by = Math.min(end() - top() + 16, room);
    if (atEnd && followed && by > 0) window.scrollBy(0, by);
    if (!document.querySelector("#transcript .exchange, [data-run]")) followed = "";
  }).observe(document, { subtree: true, childList: true, characterData: true });
})();
