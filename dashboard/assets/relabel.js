/* Labeling with the keyboard: a key presses the button that shows it. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  const KEYS = { n: "relabel-claim", g: "relabel-good", b: "relabel-bad", e: "relabel-edit", s: "relabel-skip", r: "relabel-release" };

  const ACTIONS = ["relabel-claim", "relabel-submit", "relabel-skip", "relabel-release"];
  const PATIENCE_MS = 15000;
  let waiting = null;

  /* Until the server has answered, a key would judge a case that nobody has read yet. */
  function setBusy(busy) {
    const page = document.getElementById("relabel-page");
    window.clearTimeout(waiting);
    if (busy) waiting = window.setTimeout(function () { setBusy(false); }, PATIENCE_MS);
    if (page) page.toggleAttribute("data-busy", busy);
  }
  function isBusy() {
    const page = document.getElementById("relabel-page");
    return Boolean(page && page.hasAttribute("data-busy"));
  }
  /* The rating is kept where it is seen, so that what is submitted is what the buttons show. */
  function rate(rating) {
    for (const one of ["good", "bad"]) {
      const button = document.getElementById("relabel-" + one);
      if (button) button.setAttribute("aria-pressed", String(one === rating));
    }
  }
  function rating() {
    return ["good", "bad"].find(function (one) {
      return document.getElementById("relabel-" + one).getAttribute("aria-pressed") === "true";
    }) || null;
  }
  /* At once, not when a callback has run: what is typed next belongs into the field, after the recorded answer. */
  function edit() {
    const field = document.getElementById("relabel-corrected");
    const answer = document.querySelector("#relabel-case .turn-answer .turn-text");
    if (!field.value && answer) {
      // The field is React's: it learns of a new value by the setter it has not replaced, and an event.
      Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, answer.textContent);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
  function press(id) {
    const button = document.getElementById(id);
    if (!button || button.offsetParent === null || isBusy()) return false;
    button.click();
    return true;
  }
  document.addEventListener("click", function (event) {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    if (!button) return;
    if (ACTIONS.includes(button.id)) {
      if (isBusy()) { event.stopPropagation(); event.preventDefault(); } else setBusy(true);
    }
    if (button.id === "relabel-edit") edit();
    if (button.id === "relabel-good") rate("good");
    if (button.id === "relabel-bad") rate("bad");
  }, true);
  function isField(element) {
    return element instanceof HTMLElement && (element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName));
  }

  document.addEventListener("keydown", function (event) {
    if (!document.getElementById("relabel-page") || event.isComposing || event.repeat) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (press("relabel-submit")) {
        event.preventDefault();
        if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
      }
      return;
    }
    if (isField(event.target)) {
      if (event.key === "Escape") event.target.blur();
      if (event.key === "Enter" && event.target.id === "relabel-name") { event.target.blur(); press("relabel-claim"); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector(".mantine-Modal-content, .mantine-Drawer-content")) return;
    const id = KEYS[event.key.toLowerCase()];
    if (id && press(id)) event.preventDefault();
  });

  const functions = {
    /* Fields are read as they stand on the screen: their properties follow a moment after the last key. */
    command: function () {
      const fired = (window.dash_clientside.callback_context.triggered || [])[0];
      if (!fired || !fired.value) return NONE();
      const text = function (id) { const field = document.getElementById(id); return field ? field.value : ""; };
      return {
        action: fired.prop_id.replace(/^relabel-/, "").replace(/\.n_clicks$/, ""),
        rating: rating(), name: text("relabel-name"), corrected: text("relabel-corrected"), comment: text("relabel-comment"), at: Date.now(),
      };
    },
    settled: function () {
      const fired = (window.dash_clientside.callback_context.triggered || []).map(function (one) { return one.prop_id; });
      if (fired.includes("relabel-changed.data")) rate(null);
      setBusy(false);
      return NONE();
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
