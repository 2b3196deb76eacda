// Gradio compiles its components' templates, and what they do once drawn, from strings. The page's policy forbids that to everybody, because text of
// strangers could be compiled as well: what Gradio compiles for this page is written out here instead, and all else is refused.
// This must stand before Gradio's own scripts. A test opens the page and uses all of it, so a Gradio that compiles other strings is noticed.
(() => {
  "use strict";
  // By the body that Gradio would compile: the templates "" and "${value}" of gr.HTML, as Handlebars puts them and as Gradio fills them in.
  const TEMPLATES = {
    'return "";': () => () => "",
    "return ``;": () => () => "",
    'return "${value}";': () => () => "${value}",
    "return `${value}`;": (names) => {
      const place = names.indexOf("value");
      return (...given) => String(given[place]);
    },
  };
  // By the name that a panel of ui/app.py gives as its js_on_load: what is told to the server from there, and what it is listened to for.
  const BEHAVIOURS = {
    "ask on click": (element, trigger) => element.addEventListener("click", (event) => {
      const starter = event.target.closest("[data-question]");
      if (starter) trigger("click", { question: starter.dataset.question });
    }),
    "judge on click": (element, trigger) => element.addEventListener("click", (event) => {
      const button = event.target.closest("[data-case]");
      if (button) trigger("click", { ...button.dataset });
    }),
    "list on change": (_, trigger) => document.addEventListener("citewell:changed", () => trigger("click", {})),
    "choose": (_, trigger, props, server, upload, watch) => {
      document.addEventListener("citewell:choose", (event) => trigger("click", event.detail));
      watch("value", () => document.dispatchEvent(new CustomEvent("citewell:chosen")));
    },
  };
  const native = window.Function;

  function compiled(_, given, target) {
    const body = String(given.at(-1) ?? "").trim();
    const names = given.slice(0, -1).map(String);
    if (Object.hasOwn(TEMPLATES, body)) return TEMPLATES[body](names);
    if (names[0] === "element" && Object.hasOwn(BEHAVIOURS, body)) return BEHAVIOURS[body];
    return Reflect.construct(native, given, target ?? native);
  }

  window.Function = new Proxy(native, { apply: (_, self, given) => compiled(self, given), construct: compiled });
})();
