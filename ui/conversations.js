// The list of conversations in the browser: fetched from the server as HTML; renamed, shared and deleted by way of the HTTP door.
(() => {
  "use strict";
  let dialog = null;
  let opener = null;
  let page = 1;
  let turn = 0;

  const part = (selector) => dialog?.querySelector(selector);
  const say = (sentence) => { const said = part("[data-said]"); if (said) said.textContent = sentence; };
  const shown = () => document.querySelector("#transcript [data-conversation]")?.dataset.conversation ?? "";

  async function fetched(path) {
    const response = await fetch(path, { cache: "no-store" });
    if (!response.ok || !response.headers.get("content-type")?.startsWith("text/html")) throw new Error(path);
    return response.text();
  }

  async function change(method, conversation, body) {
    let problem = "The server did not answer. Try again in a moment.";
    try {
      const headers = body ? { "content-type": "application/json" } : {};
      const response = await fetch(`/api/conversations/${encodeURIComponent(conversation)}`, { method, headers, body: body && JSON.stringify(body) });
      if (response.ok) return true;
      const said = (await response.json()).error;
      if (typeof said === "string") problem = said;
    } catch { /* the sentence above stands */ }
    await asked({ title: "This could not be done", explained: problem, done: "Close", plain: true });
    return false;
  }

  async function list(focus) {
    const mine = (turn += 1);
    const form = new URLSearchParams(new FormData(part(".filter")));
    form.set("page", page);
    let html;
    try {
      html = await fetched(`/conversations/list?${form}`);
    } catch {
      html = '<p class="hint">The list could not be loaded: the server did not answer. Close this, and try again in a moment.</p>';
    }
    if (mine !== turn) return;
    const place = part("[data-part=list]");
    place.innerHTML = html;
    for (const row of place.querySelectorAll("[data-conversation]")) {
      if (row.dataset.conversation === shown()) row.querySelector("a").setAttribute("aria-current", "page");
    }
    if (focus !== undefined) (place.querySelector(focus) ?? part("#conversations-title")).focus({ preventScroll: true });
  }

  // Asking once more, or for a title. Gives back what was typed, or true; null where it was not wanted.

  function asked({ title, explained, done, value, danger, plain }) {
    const box = document.createElement("dialog");
    box.className = "confirm";
    box.setAttribute("role", "alertdialog");
    box.setAttribute("aria-labelledby", "asked-title");
    box.setAttribute("aria-describedby", "asked-explained");
    box.innerHTML = '<form method="dialog"><h2 id="asked-title"></h2><p id="asked-explained"></p><input type="text" maxlength="120" autocomplete="off" aria-labelledby="asked-title"><div class="choices"><button class="plain" value="" formnovalidate>Cancel</button><button class="primary" value="yes"></button></div></form>';
    box.querySelector("h2").textContent = title;
    box.querySelector("p").textContent = explained;
    box.querySelector("p").hidden = !explained;
    const input = box.querySelector("input");
    const [cancel, yes] = box.querySelectorAll("button");
    if (value === undefined) input.remove();
    else {
      input.value = value;
      input.required = true;
    }
    if (plain) cancel.remove();
    yes.textContent = done;
    yes.classList.toggle("danger", Boolean(danger));
    document.body.append(box);
    return new Promise((resolve) => {
      // The first button of a form answers its Enter key: that would be the one that ends it.
      input.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        yes.click();
      });
      box.addEventListener("close", () => { resolve(box.returnValue !== "yes" ? null : value === undefined ? true : input.value); box.remove(); });
      box.showModal();
      if (value !== undefined) input.select();
    });
  }

  async function rename({ rename: conversation, title }) {
    const wanted = await asked({ title: "Rename this conversation", explained: "", done: "Rename", value: title });
    if (wanted !== null && (await change("PATCH", conversation, { title: wanted }))) say("Renamed.");
    await list(`[data-rename="${CSS.escape(conversation)}"]`);
  }

  async function share({ share: conversation, shared, asked: title, explained }) {
    const wanted = shared === "true";
    if (wanted && !(await asked({ title, explained, done: "Share" }))) return;
    if (await change("PATCH", conversation, { shared: wanted })) say(wanted ? "Shared with everybody." : "It is yours alone again.");
    await list(`[data-share="${CSS.escape(conversation)}"]`);
  }

  async function remove({ delete: conversation, asked: title, explained }) {
    if (!(await asked({ title, explained, done: "Delete", danger: true }))) return;
    const gone = await change("DELETE", conversation);
    if (gone) say("Deleted.");
    // What the page shows of it could not be gone on with.
    if (gone && conversation === shown()) return location.assign("/");
    await list("[data-conversation] a");
  }

  async function open(from) {
    if (!dialog) {
      const made = document.createElement("dialog");
      made.className = "library kept";
      made.setAttribute("aria-labelledby", "conversations-title");
      made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
      made.addEventListener("close", () => {
        if (made.open || document.activeElement !== document.body) return; // the browser has given the focus back, or the user has gone on
        (opener?.isConnected ? opener : document.querySelector("[data-open-conversations]"))?.focus({ preventScroll: true });
      });
      document.body.append(made);
      dialog = made;
    }
    opener = from;
    if (!dialog.open) dialog.showModal();
    if (!part(".filter")) {
      dialog.innerHTML = '<p class="hint" role="status">Opening…</p>';
      try {
        dialog.innerHTML = await fetched("/conversations");
      } catch {
        dialog.innerHTML = '<div class="view-head"><h2 id="conversations-title" tabindex="-1">Conversations</h2><button type="button" class="plain" data-close>Close</button></div><p class="hint">The server did not answer. Close this, and try again in a moment.</p>';
        return;
      }
      wire();
    }
    part("#conversations-title").focus({ preventScroll: true });
    list();
  }

  function wire() {
    const form = part(".filter");
    let typing = 0;
    const narrowed = () => { page = 1; list(); };
    form.addEventListener("submit", (event) => { event.preventDefault(); narrowed(); });
    form.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(narrowed, 200);
    });
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    const data = button.dataset;
    if ("openConversations" in data) open(button);
    else if (!dialog?.contains(button)) return;
    else if ("close" in data) dialog.close();
    else if ("rename" in data) rename(data);
    else if ("share" in data) share(data);
    else if ("delete" in data) remove(data);
    else if ("page" in data) {
      page = Number(data.page);
      await list("[data-conversation] a");
      part("[data-part=list]").scrollIntoView({ block: "start" });
    }
  });
})();
