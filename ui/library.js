// The documents view in the browser: the list and the progress are fetched from the server as HTML, files are sent one by one,
// and the documents that questions go to are chosen. Nothing is asked of the server while no work goes on and nobody looks.
(() => {
  "use strict";
  const OURS = { "x-citewell": "page" };
  const WORKING = 1000; // milliseconds between two looks, at least
  const LOOKING = 5000;
  let dialog = null;
  let opener = null;

  const part = (selector) => dialog?.querySelector(selector);
  const looking = () => Boolean(dialog?.open) && !document.hidden;
  const say = (sentence) => { const said = part("[data-said]"); if (said) said.textContent = sentence; };

  async function fetched(path) {
    const response = await fetch(path, { cache: "no-store" });
    if (!response.ok || !response.headers.get("content-type")?.startsWith("text/html")) throw new Error(path);
    return response.text();
  }

  async function change(path, body) {
    let problem = "The server did not answer. Try again in a moment.";
    try {
      const response = await fetch(path, { method: "POST", headers: { ...OURS, "content-type": "application/json" }, body: JSON.stringify(body) });
      if (response.ok) return true;
      problem = (await response.json()).error ?? problem;
    } catch { /* the sentence above stands */ }
    if (!dialog?.open) await open();
    note(problem, "problem");
    return false;
  }

  // Drawing: only what differs is drawn, and whoever stood on a button stands on it again.

  const KEYS = ["data-choose", "data-remove", "data-discard", "data-retry", "data-share-document", "data-page", "data-choose-all", "data-cancel", "href"];

  function draw(place, html) {
    if (place.drawn === html) return;
    const active = place.contains(document.activeElement) ? document.activeElement : null;
    const key = KEYS.find((name) => active?.hasAttribute(name));
    const told = (details) => (details.matches(".before") ? "before" : details.textContent);
    const open = [...place.querySelectorAll("details")].map((details) => [told(details), details.open]);
    place.innerHTML = html;
    place.drawn = html;
    for (const details of place.querySelectorAll("details")) {
      const before = open.find(([text]) => text === told(details));
      if (before) details.open = before[1];
    }
    if (!active) return;
    const again = key && place.querySelector(`[${key}="${CSS.escape(active.getAttribute(key))}"]`);
    (again && !again.disabled ? again : part("#library-title"))?.focus({ preventScroll: true });
  }

  // The list

  let page = 1;
  let listTurn = 0;

  async function list() {
    if (!dialog?.open) return;
    const turn = (listTurn += 1);
    const form = new URLSearchParams(new FormData(part(".filter")));
    form.set("page", page);
    let html;
    try {
      html = await fetched(`/library/list?${form}`);
    } catch {
      html = '<p class="hint">The list could not be loaded: the server did not answer. It is tried again in a few seconds.</p>';
    }
    if (turn !== listTurn) return;
    const place = part("[data-part=list]");
    draw(place, html);
    for (const options of place.querySelectorAll("template")) {
      const select = part(`select[name=${options.dataset.options}]`);
      const value = select.value;
      select.replaceChildren(select.options[0], ...options.content.cloneNode(true).children);
      if (value && ![...select.options].some((option) => option.value === value)) select.append(new Option(`${value} (0)`, value));
      select.value = value;
    }
    paint();
  }

  // The work

  let busy = false;
  let looks = 0;
  let timer = 0;

  async function look() {
    clearTimeout(timer);
    const before = busy;
    looks += 1;
    const turn = looks;
    try {
      const html = await fetched("/library/work");
      if (turn !== looks) return;
      for (const place of document.querySelectorAll("[data-part=work]")) draw(place, html);
      busy = Boolean(document.querySelector("[data-part=work] .working"));
    } catch { /* what is shown stands, and the next look may do better */ }
    if (before && !busy) document.dispatchEvent(new CustomEvent("citewell:changed"));
    if (looking() && (before !== busy || !busy || looks % 3 === 0)) await list();
    if (turn !== looks) return;
    if (looking() || (busy && !document.hidden)) timer = setTimeout(look, busy ? WORKING : LOOKING);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden && (busy || dialog?.open)) look(); });
  // Work may be going on when the page is opened: one look tells. Its place is drawn by Gradio, some time after this script has run.
  new MutationObserver((_, observer) => {
    if (!document.querySelector("#work [data-part=work]")) return;
    observer.disconnect();
    look();
  }).observe(document, { subtree: true, childList: true });

  // Files

  const queue = [];
  let sending = null;
  let sent = 0;

  function note(sentence, kind = "") {
    const item = document.createElement("li");
    item.textContent = sentence;
    item.className = kind;
    part(".upload-notes")?.append(item);
  }

  // Rounded up, so that what is just too large does not look as if it were not.
  const human = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${Math.ceil(bytes / 1e5) / 10} MB`);

  async function add(items) {
    await open();
    if (!part("#library-files")) return; // the view could not be opened, and says so
    const limit = Number(part("#library-files").dataset.limit);
    if (!sending && !queue.length) {
      part(".upload-notes").replaceChildren();
      taken.length = 0;
      sent = 0;
    }
    for (const { file, folder } of items) {
      if (folder) note(`“${file.name}” is a folder. Open it and choose its files, or use the command: citewell sync FOLDER.`, "problem");
      else if (file.size > limit) note(`“${file.name}” was not added: it is ${human(file.size)}, and ${human(limit)} is the most.`, "problem");
      else {
        const earlier = queue.findIndex((other) => other.name === file.name);
        if (earlier >= 0) {
          queue.splice(earlier, 1);
          note(`Two files are named “${file.name}”: the later one is taken.`);
        }
        queue.push(file);
      }
    }
    if (!sending) send();
  }

  function progress(file, share) {
    const box = part(".uploading");
    box.hidden = !file;
    if (!file) return;
    box.querySelector("p").textContent = `Uploading ${sent + 1} of ${sent + 1 + queue.length} · ${file.name}`;
    box.querySelector("progress").value = share;
  }

  async function send() {
    for (let file = queue.shift(); file; file = queue.shift()) {
      progress(file, 0);
      const answer = await put(file);
      sent += 1;
      if (answer.error) note(`“${file.name}” was not added: ${answer.error.replace(/\.$/, "")}.`, "problem");
      else if (answer.replaced) replaced(answer.source);
      if (answer.source && !busy) look();
    }
    progress(null);
    look();
  }

  const taken = [];

  function replaced(source) {
    taken.push(source);
    if (taken.length === 1) note(`“${source}” takes the place of the earlier upload of that name.`, "taken");
    else part(".upload-notes .taken").textContent = `“${taken[0]}” and ${taken.length - 1} more take the place of earlier uploads of the same names.`;
  }

  function put(file) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      sending = request;
      const end = (answer) => { sending = null; resolve(answer); };
      request.open("PUT", `/library/files?name=${encodeURIComponent(file.name.toWellFormed?.() ?? file.name)}`);
      for (const [name, value] of Object.entries(OURS)) request.setRequestHeader(name, value);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.onprogress = (event) => { if (event.lengthComputable) progress(file, event.loaded / event.total); };
      request.onload = () => {
        let answer = { error: "the server did not take it; try again in a moment" };
        try { answer = JSON.parse(request.responseText); } catch { /* as above */ }
        end(answer);
      };
      request.onerror = () => end({ error: "it could not be read, or the server did not answer" });
      request.onabort = () => end({ error: "cancelled" });
      request.send(file);
    });
  }

  async function cancel() {
    const left = queue.splice(0).length;
    if (left) note(`${left === 1 ? "1 file was" : `${left} files were`} not uploaded: cancelled.`);
    sending?.abort();
    if (await change("/library/cancel", {})) say("Cancelled. What was finished is kept.");
    look();
  }

  // A page by its address: the server fetches it, which takes some seconds.

  let fetching = false;

  async function fetchPage(form) {
    const field = form.elements.url;
    const button = form.querySelector("button");
    const url = field.value.trim();
    if (!url || fetching) return;
    fetching = true;
    button.textContent = "Fetching…";
    if (!sending && !queue.length) part(".upload-notes").replaceChildren();
    say("The page is being fetched.");
    const done = await change("/library/url", { url });
    fetching = false;
    button.textContent = "Add";
    if (done) field.value = "";
    say(done ? "The page was fetched." : "");
    look();
  }

  const dropped = (event) => [...event.dataTransfer.items].filter((item) => item.kind === "file")
    .map((item) => ({ file: item.getAsFile(), folder: Boolean(item.webkitGetAsEntry?.()?.isDirectory) })).filter(({ file }) => file);
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

  // A file that is dropped anywhere is added; without this, the browser would leave the page to show it.
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    document.documentElement.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.documentElement.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    document.documentElement.classList.remove("dropping");
    if (!carries(event)) return;
    event.preventDefault();
    event.stopPropagation();
    add(dropped(event));
  }, true);

  // The choice of documents. The server keeps it, because a question takes it from there, and says it back in the page with the number of its turn.

  let chosen = new Set();
  let turn = 0;
  let pending = 0;
  let again = false;

  function choose(ids) {
    chosen = new Set(ids);
    paint();
    if (pending) again = true;
    else tell();
  }

  function tell() {
    again = false;
    turn += 1;
    pending = setTimeout(() => { pending = 0; if (again) tell(); }, 5000);
    document.dispatchEvent(new CustomEvent("citewell:choose", { detail: { documents: [...chosen], turn } }));
  }

  document.addEventListener("citewell:chosen", () => {
    const said = document.querySelector("#choice [data-chosen]");
    if (!said) return;
    const answered = Number(said.dataset.turn);
    if (answered < turn) {
      if (!pending) tell();
      return;
    }
    clearTimeout(pending);
    pending = 0;
    turn = answered;
    if (again) return tell();
    chosen = new Set(JSON.parse(said.dataset.chosen));
    paint();
  });

  function paint() {
    if (!dialog) return;
    const boxes = [...dialog.querySelectorAll("[data-choose]")];
    for (const box of boxes) box.checked = chosen.has(box.dataset.choose);
    const checked = boxes.filter((box) => box.checked).length;
    const all = part("[data-choose-all]");
    if (all) {
      all.checked = boxes.length > 0 && checked === boxes.length;
      all.indeterminate = checked > 0 && checked < boxes.length;
      all.disabled = !boxes.length;
    }
    const bar = part(".chosen-bar");
    bar.hidden = !chosen.size;
    if (chosen.size) bar.querySelector("p").textContent = `${chosen.size.toLocaleString("en")} chosen. Questions go to ${chosen.size === 1 ? "it" : "them"} only.`;
    bar.querySelector("[data-remove-chosen]").textContent = chosen.size === 1 ? "Remove it" : "Remove them";
    bar.querySelector(".primary").textContent = chosen.size === 1 ? "Ask it" : "Ask them";
  }

  // Asking once more

  function confirmed(asked, explained, done) {
    const box = document.createElement("dialog");
    box.className = "confirm";
    box.setAttribute("role", "alertdialog");
    box.setAttribute("aria-labelledby", "confirm-asked");
    box.setAttribute("aria-describedby", "confirm-explained");
    box.innerHTML = '<h2 id="confirm-asked"></h2><p id="confirm-explained"></p><form method="dialog"><button class="plain" value="">Keep</button><button class="primary danger" value="yes">Remove</button></form>';
    box.querySelector("h2").textContent = asked;
    box.querySelector("p").textContent = explained;
    if (done) {
      const [keep, yes] = box.querySelectorAll("button");
      keep.textContent = "Cancel";
      yes.textContent = done;
      yes.classList.remove("danger");
    }
    document.body.append(box);
    return new Promise((resolve) => {
      box.addEventListener("close", () => { resolve(box.returnValue === "yes"); box.remove(); });
      box.showModal();
    });
  }

  async function remove(documents, asked, explained) {
    if (!(await confirmed(asked, explained))) return;
    const done = (await change("/library/remove", { documents })) ? "Removed." : "";
    if (done && documents.some((id) => chosen.has(id))) choose([...chosen].filter((id) => !documents.includes(id)));
    say(done);
    document.dispatchEvent(new CustomEvent("citewell:changed"));
    await list();
    look();
  }

  // The view

  let frame = null;

  async function open(from) {
    if (!dialog) {
      const made = document.createElement("dialog");
      made.className = "library";
      made.setAttribute("aria-labelledby", "library-title");
      made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
      made.addEventListener("close", () => {
        if (made.open) return; // opened again before this was heard
        if (!busy) clearTimeout(timer);
        if (document.activeElement !== document.body) return; // the browser has given the focus back, or the user has gone on
        const button = opener?.isConnected ? opener : document.querySelector("[data-open-library]");
        button?.focus({ preventScroll: true });
      });
      document.body.append(made);
      dialog = made;
    }
    if (!dialog.open) {
      opener = from ?? document.activeElement;
      dialog.showModal();
    }
    if (!frame) {
      dialog.innerHTML = '<p class="hint" role="status">Opening…</p>';
      frame = fetched("/library").then((html) => { dialog.innerHTML = html; wire(); });
      try {
        await frame;
      } catch {
        frame = null;
        dialog.innerHTML = '<div class="view-head"><h2 id="library-title" tabindex="-1">Documents</h2><button type="button" class="plain" data-close>Close</button></div><p class="hint">The server did not answer. Close this, and try again in a moment.</p>';
        return;
      }
    } else await frame;
    part("#library-title").focus({ preventScroll: true });
    list();
    look();
  }

  function wire() {
    const form = part(".filter");
    let typing = 0;
    const narrowed = () => { page = 1; list(); };
    form.addEventListener("submit", (event) => { event.preventDefault(); narrowed(); });
    form.addEventListener("input", (event) => {
      clearTimeout(typing);
      typing = setTimeout(narrowed, event.target.matches("select") ? 0 : 200);
    });
    part(".address")?.addEventListener("submit", (event) => { event.preventDefault(); fetchPage(event.target); });
    part("#library-files").addEventListener("change", (event) => {
      add([...event.target.files].map((file) => ({ file, folder: false })));
      event.target.value = "";
    });
  }

  document.addEventListener("change", (event) => {
    if (!dialog?.contains(event.target)) return;
    const one = event.target.dataset?.choose;
    if (one !== undefined) choose(event.target.checked ? [...chosen, one] : [...chosen].filter((id) => id !== one));
    if (event.target.hasAttribute("data-choose-all")) {
      const shown = [...dialog.querySelectorAll("[data-choose]")].map((box) => box.dataset.choose);
      choose(event.target.checked ? [...chosen, ...shown] : [...chosen].filter((id) => !shown.includes(id)));
    }
  });

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    const data = button.dataset;
    if ("openLibrary" in data) open(button);
    else if ("chooseNone" in data) choose([]);
    else if ("cancel" in data) cancel();
    else if (!dialog?.contains(button)) return;
    else if ("close" in data) dialog.close();
    else if ("page" in data) {
      page = Number(data.page);
      await list();
      part("[data-part=list]").scrollIntoView({ block: "start" });
    } else if ("retry" in data) {
      if (await change("/library/retry", { root: data.root, source: data.retry })) say("It is tried again.");
      await list();
      look();
    } else if ("remove" in data) remove([data.remove], data.asked, data.explained);
    else if ("shareDocument" in data) {
      const shared = data.shared === "true";
      if (!(await confirmed(data.asked, data.explained, data.done))) return;
      if (await change("/library/share", { document: data.shareDocument, shared })) say(shared ? "Shared with everybody." : "It is yours alone again.");
      await list();
    } else if ("discard" in data) {
      if (!(await confirmed(data.asked, data.explained))) return;
      if (await change("/library/discard", { root: data.root, source: data.discard })) say("Removed.");
      await list();
      look();
    }
    else if ("removeChosen" in data) {
      const several = chosen.size > 1;
      remove([...chosen], several ? `Remove the ${chosen.size.toLocaleString("en")} chosen documents?` : "Remove the chosen document?",
        `${several ? "Their" : "Its"} text and passages go at once, and no answer uses ${several ? "them" : "it"} any more. Uploaded files are deleted; files of synced folders stay where they are, and are left out until you retry them.`);
    }
  });
})();
