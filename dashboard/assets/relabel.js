/* Labeling with the keyboard: a key presses the button that shows it, or answers the current field of the form. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  const KEYS = { a: "relabel-another", n: "relabel-claim", s: "relabel-skip", r: "relabel-release", u: "relabel-undo" };
  const ACTIONS = ["relabel-claim", "relabel-submit", "relabel-skip", "relabel-release", "relabel-undo"];
  const PATIENCE_MS = 15000;
  let waiting = null;
  let sent = null;
  let desk = null;

  function element(id) { return document.getElementById(id); }

  /* Until the server has answered, a key would judge a case that nobody has read yet. */
  function setBusy(busy) {
    const page = element("relabel-page");
    window.clearTimeout(waiting);
    if (busy) waiting = window.setTimeout(function () { setBusy(false); }, PATIENCE_MS);
    if (page) page.toggleAttribute("data-busy", busy);
    if (!busy) relabel.atRest();
  }
  function isBusy() {
    const page = element("relabel-page");
    return Boolean(page && page.hasAttribute("data-busy"));
  }
  function press(id) {
    const button = element(id);
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
    if (button.dataset.take && desk) take(button.dataset.take);
  }, true);
  function isText(target) {
    if (!(target instanceof HTMLElement) || target.matches(".surface")) return false;
    if (target instanceof HTMLInputElement) return !["radio", "checkbox", "button"].includes(target.type);
    return target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName);
  }

  /* Whether a dialog or a panel lies over the page; one that is kept for later has no box. */
  function isCovered() {
    return Array.from(document.querySelectorAll(".mantine-Modal-content, .mantine-Drawer-content")).some((one) => one.getClientRects().length);
  }

  document.addEventListener("keydown", function (event) {
    if (!element("relabel-page") || event.isComposing || event.repeat) return;
    if (isCovered()) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (press("relabel-submit")) event.preventDefault();
      return;
    }
    if (isText(event.target) && !(event.target.type === "number" && /^[a-z?]$/i.test(event.key))) {
      if (event.key === "Escape") event.target.blur();
      if (event.key === "Enter" && event.target.id === "relabel-name") { event.target.blur(); press("relabel-claim"); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (KEYS[key] ? press(KEYS[key]) : typed(key)) event.preventDefault();
  });
  /* Keys of the form. */
  function typed(key) {
    if (!desk || isBusy() || !desk.root.offsetParent) return false;
    if (key === "e" && desk.corrected) { desk.corrected.start(); return true; }
    if (key === "w" && desk.corrected) return desk.corrected.takeOver();
    if (key === "c") { desk.comment.focus(); return true; }
    if (key === "j" || key === "k") { desk.move(key === "j" ? 1 : -1); return true; }
    if (key === "?") { const help = element("relabel-keys"); if (help) help.open = !help.open; return Boolean(help); }
    return key.length === 1 && desk.press(key);
  }

  /* What has been entered is kept in this browser until the case is done, by case and by annotator. */
  function slot(held) { return "servelens.draft." + held.id + "." + held.annotator; }
  function stored(held) {
    try { return JSON.parse(window.localStorage.getItem(slot(held))); } catch (error) { return null; }
  }
  function store(held, draft) {
    try {
      if (Object.keys(draft.values).length || draft.comment) window.localStorage.setItem(slot(held), JSON.stringify(draft));
      else window.localStorage.removeItem(slot(held));
    } catch (error) { /* private mode, or no room: nothing is kept over a reload */ }
  }
  function forget(held) {
    try { window.localStorage.removeItem(slot(held)); } catch (error) { /* nothing was kept */ }
  }

  function draftOf(form) { return { ...form.draft(), marks: form.held.marks }; }
  /* With another answer the letters of the others may be other ones. */
  function translated(draft, held) {
    const field = held.fields.find((one) => one.type === "preference");
    const was = field && draft.marks && draft.values[field.name];
    if (!was || !(was in draft.marks)) return draft;
    const values = { ...draft.values };
    delete values[field.name];
    for (const [letter, mark] of Object.entries(held.marks)) if (mark === draft.marks[was]) values[field.name] = letter;
    return { ...draft, values: values };
  }
  /* Where somebody is typing, to go on there in the form that takes this one's place. */
  function cursor() {
    const active = document.activeElement;
    if (!active || !active.id || !element("relabel-form").contains(active)) return null;
    return { id: active.id, start: active.selectionStart, end: active.selectionEnd };
  }
  function returnTo(place) {
    const field = place && element(place.id);
    if (!field) return;
    field.focus({ preventScroll: true });
    if (typeof place.start === "number") field.setSelectionRange(place.start, place.end);
  }

  function take(which) {
    const held = desk.held;
    if (which === "majority") desk.write(held.majority, "");
    else desk.write(held.given[Number(which)].values, "");
    desk.focus(desk.current);
  }
  function reveal() {
    const answers = element("relabel-answers");
    if (!answers) return;
    const asked = desk.fields.find((field) => field.type === "preference");
    const blind = Boolean(asked) && asked.read() === null;
    if (answers.hasAttribute("data-blind") === blind) return;
    answers.toggleAttribute("data-blind", blind);
    relabel.redraw();
  }
  function show(held) {
    if (!held) { desk = null; relabel.forgetSpans(); element("relabel-form").replaceChildren(); relabel.atRest(); return; }
    if (desk && desk.held.serial === held.serial) { desk.held = held; return; }
    const before = desk && ["id", "annotator", "adjudication"].every((name) => desk.held[name] === held[name]) ? desk : null;
    const kept = before && draftOf(before), place = before && cursor();
    relabel.forgetSpans();
    let restoring = true;
    desk = new relabel.Form(element("relabel-form"), held, "relabel", function () {
      if (restoring) return;
      store(desk.held, draftOf(desk));
      reveal();
    });
    const write = function (draft) { const now = translated(draft, held); desk.write(now.values, now.comment); };
    if (before) {
      // At once: a key that is pressed now belongs into the field in which somebody types.
      write(kept);
      restoring = false;
      desk.makeCurrent(before.current);
      returnTo(place);
      store(desk.held, draftOf(desk));
    }
    relabel.atRest();
    relabel.mountPieces(held, function () {
      if (!desk || desk.held.serial !== held.serial) return;
      if (before) {
        desk.fields.filter((field) => field.type === "spans").forEach((field) => field.show());
        reveal();
        return;
      }
      const draft = stored(held);
      if (draft) write(draft);
      else if (held.prefill) desk.write(held.prefill, held.comment);
      restoring = false;
      reveal();
      const title = element("relabel-case-title");
      const focused = document.activeElement;
      if (title && !(focused && isText(focused) && focused.id !== "relabel-name")) title.focus({ preventScroll: true });
      const bench = element("relabel-bench"), top = bench.getBoundingClientRect().top;
      const hidden = bench.querySelector(".desk").getBoundingClientRect().bottom > window.innerHeight;
      // The case and the whole desk on one screen, below the bar that stays.
      if (top < 0 || (hidden && window.innerWidth > 1080)) bench.scrollIntoView({ block: "start" });
    });
  }

  relabel.isBusy = isBusy;
  relabel.held = function () { return desk && desk.held; };
  /* Tell the server to do something with the case on the desk; says whether it was the moment for it. */
  relabel.send = function (action) {
    if (!desk || isBusy()) return false;
    setBusy(true);
    sent = { action: action, held: desk.held };
    const name = element("relabel-name").value;
    window.dash_clientside.set_props("relabel-command", { data: { action: action, name: name, at: Date.now() } });
    return true;
  };

  const functions = {
    /* Fields are read as they stand on the screen: their properties follow a moment after the last key. */
    command: function () {
      const inputs = Array.from(arguments), tab = inputs[ACTIONS.length];
      const fired = (window.dash_clientside.callback_context.triggered || [])[0];
      if (!fired || !fired.value) return NONE();
      const action = fired.prop_id.replace(/^relabel-/, "").replace(/\.n_clicks$/, "");
      sent = { action: action, held: desk && desk.held };
      return {
        action: action, tab: tab, name: element("relabel-name").value, at: Date.now(),
        values: desk ? desk.values() : {}, comment: desk ? desk.comment.value : "",
      };
    },
    form: function (held) { show(held); return NONE(); },
    userAnswer: function (given) {
      if (desk && desk.corrected && given && given.id === desk.held.id) desk.corrected.offer(given.answer);
      return NONE();
    },
    settled: function () {
      const fired = (window.dash_clientside.callback_context.triggered || []).map(function (one) { return one.prop_id; });
      const page = element("relabel-page");
      if (fired.includes("relabel-changed.data") && sent) {
        if (sent.held && ["submit", "skip", "release"].includes(sent.action)) forget(sent.held);
        sent = null;
      }
      const problem = element("relabel-problem");
      // The slot is drawn a moment after its property has changed.
      window.requestAnimationFrame(function () {
        const words = problem && problem.querySelector(".problem strong"), field = problem && problem.querySelector(".problem-field");
        if (page) page.toggleAttribute("data-failed", Boolean(words));
        if (desk && words && field) {
          const name = /^values\.([^.[]+)/.exec(field.textContent);
          if (name) desk.mark(name[1], words.textContent);
        }
        setBusy(false);
      });
      return NONE();
    },
    relabelTab: function (search) {
      const tabs = Array.from(document.querySelectorAll("#relabel-tabs a"));
      const names = tabs.map(function (one) { return one.id.replace("relabel-tab-", ""); });
      const asked = new URLSearchParams(search || "").get("tab");
      const here = names.includes(asked) ? asked : "label";
      tabs.forEach(function (one, place) {
        if (names[place] === here) one.setAttribute("aria-current", "page"); else one.removeAttribute("aria-current");
      });
      const page = element("relabel-page");
      if (page) page.dataset.tab = here;
      const hrefs = names.map(function (name) { return "/relabel" + withTab(search, name); });
      return [here].concat(hrefs);
    },
    openCase: function (clicks, search) {
      const one = (window.dash_clientside.callback_context.triggered || [])[0];
      if (!one || !one.value) return NONE();
      return window.servelens.withParameter(search, "case", JSON.parse(one.prop_id.replace(/\.n_clicks$/, "")).case);
    },
    caseShown: function (search) {
      const asked = new URLSearchParams(search || "").get("case");
      const id = /^\d{1,18}$/.test(asked || "") ? Number(asked) : null;
      return [id !== null, id];
    },
    closeCase: function (opened, search) {
      if (opened || !new URLSearchParams(search || "").get("case")) return NONE();
      return window.servelens.withParameter(search, "case", null);
    },
  };
  function withTab(search, name) {
    const without = window.servelens.withParameter(search, "case", null);
    return window.servelens.withParameter(without, "tab", name === "label" ? null : name);
  }
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
