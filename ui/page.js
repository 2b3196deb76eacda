// The chat page's behaviour in the browser: documents open in a dialog, seconds are counted, the newest words stay in view.
// Listeners sit on the document, so they outlive every re-rendering.
(() => {
  "use strict";
  let dialog = null;
  let opened = 0;
  const LATE_SECONDS = 45;

  function reader() {
    if (dialog) return dialog;
    dialog = document.createElement("dialog");
    dialog.className = "reader";
    dialog.setAttribute("aria-labelledby", "document-title");
    dialog.innerHTML = '<div class="bar"><a target="_blank" rel="noopener">Open in a new tab</a><button type="button">Close</button></div><div class="content"></div>';
    dialog.querySelector("button").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => {
      if (dialog.open) return; // opened again before this was heard
      opened += 1;
      dialog.querySelector(".content").replaceChildren();
      if (document.activeElement !== document.body) return; // the browser has given the focus back, or the user has gone on
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
      if (response.headers.get("content-type")?.startsWith("text/html") && [200, 400, 404, 409, 429].includes(response.status)) html = await response.text();
    } catch { /* the message above stands */ }
    if (turn !== opened) return;
    content.innerHTML = html;
    const quote = content.querySelector("#quote");
    unroll(content.querySelector(".picture"));
    quote?.scrollIntoView({ block: "center" });
    // Blocks of a long text get their real height only once they are in sight; the second look lands on the final place.
    requestAnimationFrame(() => quote?.scrollIntoView({ block: "center" }));
    (quote ?? content.querySelector(".text, .picture") ?? box.querySelector("button")).focus({ preventScroll: true });
  }

  // A page as it looks. On a narrow screen it is shown wider than the screen, or its letters could not be read.

  const ZOOMS = [0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4];
  const READABLE = 700; // pixels across a page
  const HIGHLIGHT = [255, 235, 80]; // what index/formats/pdf.py lays over the words, on white
  let zoom = 0; // not chosen yet

  async function unroll(picture) {
    const image = picture?.querySelector("img");
    if (!image) return;
    picture.parentElement.querySelector(".zoom").hidden = false;
    await image.decode().catch(() => {});
    if (!picture.isConnected || !image.naturalWidth) return;
    const fits = picture.querySelector(".sheet").clientWidth;
    enlarge(picture, zoom || ZOOMS.find((step) => step >= 1 && step * fits >= READABLE) || 1);
    const place = picture.querySelector("#marked");
    if (!place) return;
    const depth = Number(place.dataset.depth) / 20;
    const { left, right, top, bottom } = highlighted(image) ?? { left: 0.5, right: 0.5, top: depth, bottom: depth };
    const [across, down] = [left, top].map((share, axis) => share * [image.clientWidth, image.clientHeight][axis] + [image.offsetLeft, image.offsetTop][axis]);
    const [width, height] = [(right - left) * image.clientWidth, (bottom - top) * image.clientHeight];
    // What is wider than the view is read from its left end.
    picture.scrollTo(Math.min(across + width / 2 - picture.clientWidth / 2, across - 12), Math.min(down + height / 2 - picture.clientHeight / 2, down - 24));
  }

  // Where the highlighted words are, in shares of the picture; nothing in a scan, whose words have no place.
  function highlighted(image) {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const brush = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
    brush.drawImage(image, 0, 0);
    const { data } = brush.getImageData(0, 0, width, height);
    let [left, right, top, bottom] = [width, 0, height, 0];
    for (let at = 0; at < data.length; at += 4) {
      if (data[at] !== HIGHLIGHT[0] || data[at + 1] !== HIGHLIGHT[1] || data[at + 2] !== HIGHLIGHT[2]) continue;
      const x = (at / 4) % width;
      const y = Math.floor(at / 4 / width);
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
    return left > right ? null : { left: left / width, right: right / width, top: top / height, bottom: bottom / height };
  }

  function enlarge(picture, to) {
    const middle = [(picture.scrollLeft + picture.clientWidth / 2) / picture.scrollWidth, (picture.scrollTop + picture.clientHeight / 2) / picture.scrollHeight];
    picture.style.setProperty("--zoom", to);
    picture.dataset.zoom = to;
    picture.scrollTo(middle[0] * picture.scrollWidth - picture.clientWidth / 2, middle[1] * picture.scrollHeight - picture.clientHeight / 2);
    for (const button of picture.parentElement.querySelectorAll("[data-zoom]:not(.picture)")) button.disabled = !ZOOMS[ZOOMS.indexOf(to) + Number(button.dataset.zoom)];
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button[data-zoom]");
    if (!button) return;
    const picture = button.closest(".document").querySelector(".picture");
    zoom = ZOOMS[ZOOMS.indexOf(Number(picture.dataset.zoom)) + Number(button.dataset.zoom)] ?? zoom;
    enlarge(picture, zoom);
  });

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

  // While one question runs, another is not sent. What was sent before its answer had been put away is asked once it is, if it still stands there as it was.
  let sending = null;
  addEventListener("keydown", (event) => {
    const composing = event.isComposing || event.keyCode === 229; // Safari says the end of it so
    const box = event.key === "Enter" && !event.shiftKey && !composing && event.target.closest?.("#ask textarea");
    const sendable = document.querySelector("#send:enabled")?.offsetParent;
    if (!box || sendable) return;
    event.preventDefault();
    event.stopPropagation();
    const typed = box.value;
    sending?.disconnect(); // however often it is pressed, it is sent once
    if (!typed.trim() || document.querySelector("[data-run]")) return;
    const watch = sending = new MutationObserver(() => {
      const send = document.querySelector("#send:enabled");
      if (!send && box.value === typed) return;
      watch.disconnect();
      if (box.value === typed) send.click();
    });
    watch.observe(document.querySelector("#composer"), { subtree: true, childList: true, attributeFilter: ["disabled"] });
  }, true);

  // An answer's verdict is drawn anew once something is said of it; whoever pressed its button stays there, and sees all of what came.
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest?.("[data-case]");
    if (!pressed) return;
    const next = { keep: "drop", right: "drop", drop: "keep" }[pressed.dataset.case] ?? pressed.dataset.case;
    const other = `[data-key="${CSS.escape(pressed.dataset.key)}"][data-case="${next}"]`;
    const watch = new MutationObserver(() => {
      const button = document.querySelector(other);
      if (!button || button === pressed) return;
      watch.disconnect();
      button.focus({ preventScroll: true });
      const below = button.closest(".verdict").getBoundingClientRect().bottom + 16 - top();
      if (below > 0) window.scrollBy(0, below);
    });
    watch.observe(document.querySelector("#transcript"), { subtree: true, childList: true });
    setTimeout(() => watch.disconnect(), 10000);
  });

  // What is typed as a reason goes with the button that saves it.
  document.addEventListener("input", (event) => {
    const reason = event.target.closest?.(".verdict .reason");
    if (!reason) return;
    reason.querySelector("button").dataset.reason = event.target.value;
    reason.querySelector(".saved")?.remove();
  });
  document.addEventListener("keydown", (event) => {
    const reason = event.key === "Enter" && !event.isComposing && event.target.closest?.(".verdict .reason");
    if (reason) reason.querySelector("button").click();
  });

  // The address tells which conversation this is, so that a reload brings it back. Without one, there is none yet.
  new MutationObserver(() => {
    const log = document.querySelector("#transcript [data-conversation]");
    if (!log) return;
    const address = new URL(location.href);
    if ((address.searchParams.get("conversation") ?? "") === log.dataset.conversation) return;
    if (log.dataset.conversation) address.searchParams.set("conversation", log.dataset.conversation);
    else address.searchParams.delete("conversation");
    history.replaceState(history.state, "", address);
  }).observe(document, { subtree: true, childList: true });

  // The server may go away, or be started again and know nothing of this tab. What was said stays to be read, past the reload that must follow.

  const KEPT = "citewell-kept";
  const away = () => document.documentElement.classList.contains("unreachable");

  const who = () => document.querySelector("#masthead [data-user]")?.dataset.user ?? "";

  function keep() {
    const exchanges = [...document.querySelectorAll("#earlier .exchange, #transcript .exchange, #running .exchange")].map((exchange) => {
      const copy = exchange.cloneNode(true);
      copy.removeAttribute("data-run");
      for (const part of copy.querySelectorAll(".verdict, .status, .slow")) part.remove();
      return copy.outerHTML;
    });
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ exchanges: exchanges.join(""), question: document.querySelector("#ask textarea")?.value ?? "", who: who() }));
    } catch { /* more than the browser has room for: the page begins anew without it */ }
  }

  addEventListener("pagehide", () => { if (away()) keep(); });
  document.addEventListener("click", (event) => { if (event.target.closest?.("[data-sign-out]")) sessionStorage.removeItem(KEPT); });

  // Once the page is open: then it shows who is signed in, and what of the conversation the server has kept.
  new MutationObserver((_, observer) => {
    const earlier = document.querySelector("#earlier .earlier");
    const box = document.querySelector("#ask textarea");
    const log = document.querySelector("#transcript [data-conversation]");
    if (!earlier || !box || !log) return;
    observer.disconnect();
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    sessionStorage.removeItem(KEPT);
    if (!kept || kept.who !== who()) return;
    const place = earlier.querySelector("div");
    place.innerHTML = kept.exchanges;
    for (const exchange of place.querySelectorAll("[data-kept]")) {
      if (log.querySelector(`[data-kept="${CSS.escape(exchange.dataset.kept)}"]`)) exchange.remove();
    }
    earlier.hidden = !place.children.length;
    earlier.scrollIntoView({ block: "end" });
    if (!kept.question || box.value) return;
    box.value = kept.question;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }).observe(document, { subtree: true, childList: true });

  const PATIENCE = 30000;
  let met = false;
  let expired = false;
  let early = "";
  const anew = () => { keep(); location.reload(); };

  // A server that answers, and asks to sign in, is not away.
  setInterval(async () => {
    if (!away()) return;
    const answered = await fetch("/conversations", { cache: "no-store" }).catch(() => null);
    if (answered?.status === 401) anew();
  }, 2000);
  new MutationObserver(() => {
    // Gradio tells of the loss in words of its own, which the style hides, and reloads the page once the server is back.
    if (!away() && [...document.querySelectorAll(".toast-message-text")].some((told) => told.textContent.startsWith("Connection to the server was lost"))) {
      document.documentElement.classList.add("unreachable");
    }
    // Whoever is not signed in any more is led to where one signs in, and finds what they typed again.
    if (!expired && [...document.querySelectorAll(".toast-message-text")].some((told) => told.textContent.startsWith("Sign in first"))) {
      expired = true;
      anew();
    }
    if (document.querySelector("#welcome .welcome, #transcript .exchange")) met = true;
    const forgotten = document.querySelector("[data-forgotten]");
    if (forgotten) {
      forgotten.removeAttribute("data-forgotten");
      if (met) {
        anew();
      } else {
        // Whoever types faster than the page opens has not been forgotten, only not been met yet.
        forgotten.textContent = "Opening your documents…";
        early = document.querySelector("#ask textarea").value;
        setTimeout(() => { if (!met) anew(); }, PATIENCE);
      }
    } else if (early && met) {
      if (document.querySelector("#ask textarea").value === early) document.querySelector("#send").click();
      early = "";
    }
  }).observe(document, { subtree: true, childList: true });

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-let-go], #clear")) return;
    const earlier = document.querySelector("#earlier .earlier");
    earlier.hidden = true;
    earlier.querySelector("div").replaceChildren();
  });

  // That an answer has been put away is said by a request of its own, which may fail: after that, asking again is still possible.
  const SETTLING_SECONDS = 5;
  let unsettled = 0;
  setInterval(() => {
    const send = document.querySelector("#send:disabled");
    const waits = send?.offsetParent && !document.querySelector("[data-run]") && !away();
    unsettled = waits ? unsettled + 1 : 0;
    if (unsettled > SETTLING_SECONDS * 4) send.disabled = false;
  }, 250);

  // The seconds since a question was sent, counted here so that waiting costs the server nothing.
  const started = new Map();
  setInterval(() => {
    const run = document.querySelector("[data-run]");
    if (away()) return;
    if (!run) return started.clear();
    if (!started.has(run.dataset.run)) started.set(run.dataset.run, Date.now());
    const seconds = Math.round((Date.now() - started.get(run.dataset.run)) / 1000);
    const counter = run.querySelector(".elapsed");
    if (counter) counter.textContent = seconds ? `${seconds} s` : "";
    run.classList.toggle("late", seconds >= LATE_SECONDS);
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
