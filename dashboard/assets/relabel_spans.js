/* Marking parts of a text. Places are counted in characters (Unicode code points), of the whole text of the request or the
   answer; a text may be shown in several pieces. The pieces on the screen belong to this file, not to React. */
(function () {
  "use strict";
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  const PATIENCE_MS = 10000;
  const BLOCKED = ["beforeinput", "dragstart", "drop", "paste", "cut"];
  let pieces = [];
  let layers = [];
  let chosen = null;

  class Piece {
    constructor(shown, element) {
      this.side = shown.side; this.offset = shown.offset; this.text = shown.text; this.element = element;
      this.length = Array.from(shown.text).length;
      this.isPlain = this.length === shown.text.length;
    }
    /* From characters to UTF-16 units and back; half a surrogate pair belongs to the character it is of. */
    units(points) { return this.isPlain ? points : Array.from(this.text).slice(0, points).join("").length; }
    points(units, up) {
      if (this.isPlain) return units;
      const before = this.text.slice(0, units), half = /[\ud800-\udbff]$/.test(before) && /^[\udc00-\udfff]/.test(this.text.slice(units));
      return Array.from(before).length - (half && !up ? 1 : 0);
    }
    /* The selection inside the piece, or null. */
    selection() {
      const selected = window.getSelection();
      if (!selected.rangeCount) return null;
      const range = selected.getRangeAt(0);
      if (!this.element.contains(range.startContainer) || !this.element.contains(range.endContainer)) return null;
      const measure = document.createRange();
      measure.selectNodeContents(this.element);
      measure.setEnd(range.startContainer, range.startOffset);
      const start = measure.toString().length, end = start + range.toString().length;
      return { piece: this, start: this.offset + this.points(start, false), end: this.offset + this.points(end, true) };
    }
    setCaret(point) {
      let units = this.units(Math.max(0, Math.min(this.length, point - this.offset)));
      const walker = document.createTreeWalker(this.element, NodeFilter.SHOW_TEXT);
      for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        if (units <= node.length) { window.getSelection().collapse(node, units); return; }
        units -= node.length;
      }
    }
    draw() {
      const blind = Boolean(this.element.closest("[data-blind]"));
      const marks = blind ? [] : layers.filter((layer) => layer.of === this.side).flatMap((layer) => layer.marked.map((span) => ({ ...span, tint: layer.options.findIndex((one) => one.value === span.label) % 6 })));
      const inside = marks.map((span) => ({ ...span, from: Math.max(0, span.start - this.offset), to: Math.min(this.length, span.end - this.offset) })).filter((span) => span.from < span.to);
      const cuts = [...new Set([0, this.length, ...inside.flatMap((span) => [span.from, span.to])])].sort((a, b) => a - b);
      const parts = [];
      for (let place = 0; place + 1 < cuts.length; place++) {
        const [from, to] = [cuts[place], cuts[place + 1]];
        const text = document.createTextNode(this.text.slice(this.units(from), this.units(to)));
        const over = inside.filter((span) => span.from <= from && span.to >= to);
        if (!over.length) { parts.push(text); continue; }
        const mark = document.createElement("mark");
        const top = over[over.length - 1];
        mark.className = "tint-" + top.tint + (over.length > 1 ? " overlap" : "");
        mark.title = over.map((span) => span.label).join(", ");
        const ending = over.filter((span) => span.to === to).map((span) => span.label);
        if (ending.length) mark.dataset.label = ending.join(", ");
        mark.append(text);
        parts.push(mark);
      }
      const caret = document.activeElement === this.element ? this.selection() : null;
      this.element.replaceChildren(...parts);
      if (caret) this.setCaret(caret.end);
      this.element.contentEditable = blind ? "false" : "true";
    }
    /* Text that takes a caret but no input, so that a selection can be made without the mouse. */
    listen() {
      const properties = { role: "textbox", tabindex: "0", "aria-readonly": "true", "aria-multiline": "true", inputmode: "none", spellcheck: "false",
        "aria-label": (this.side === "request" ? "Text of the request" : "Text of the answer") + ", to mark" };
      for (const [name, value] of Object.entries(properties)) this.element.setAttribute(name, value);
      for (const name of BLOCKED) this.element.addEventListener(name, (event) => event.preventDefault());
      this.element.addEventListener("input", () => this.draw());
      this.element.addEventListener("focus", () => {
        const layer = layers.find((one) => one.form.current === one.place && one.of === this.side) || layers.find((one) => one.of === this.side);
        if (layer) layer.form.makeCurrent(layer.place);
      });
      this.element.addEventListener("keydown", (event) => {
        if (event.key === "Backspace" || event.key === "Delete") { event.preventDefault(); this.erase(); }
        else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) event.preventDefault();
      });
    }
    erase() {
      const here = this.selection();
      if (!here) return;
      const touches = (span) => (here.start === here.end ? span.start <= here.start && span.end >= here.start : span.start < here.end && span.end > here.start);
      const own = layers.filter((layer) => layer.of === this.side);
      const layer = own.find((one) => one.form.current === one.place && one.marked.some(touches)) || own.find((one) => one.marked.some(touches));
      if (layer) layer.keep(layer.marked.filter((span) => !touches(span)));
    }
  }

  document.addEventListener("selectionchange", function () {
    for (const piece of pieces) {
      const here = piece.selection();
      if (here) { chosen = here.start < here.end ? here : null; return; }
    }
  });

  /* What is selected now, else what was selected last, without the space around it. The event may be late. */
  function picked(side) {
    const now = pieces.filter((piece) => piece.side === side).map((piece) => piece.selection()).find((one) => one && one.start < one.end);
    const found = now || chosen;
    if (!found || found.piece.side !== side || !pieces.includes(found.piece)) return null;
    const points = Array.from(found.piece.text).slice(found.start - found.piece.offset, found.end - found.piece.offset);
    const isSpace = (point) => /^\s$/.test(point);
    let from = 0, to = points.length;
    while (from < to && isSpace(points[from])) from++;
    while (to > from && isSpace(points[to - 1])) to--;
    return from < to ? { piece: found.piece, start: found.start + from, end: found.start + to } : found;
  }

  /* Makes `field` one that marks text; `list` shows what is marked. */
  relabel.spans = function (field, form, list, make) {
    const layer = Object.assign(field, { form: form, marked: [] });
    layers.push(layer);
    const text = (span) => {
      const piece = pieces.find((one) => one.side === field.of && span.start >= one.offset && span.start < one.offset + one.length);
      return piece ? piece.text.slice(piece.units(span.start - piece.offset), piece.units(Math.min(piece.length, span.end - piece.offset))) : "";
    };
    field.show = () => {
      pieces.filter((piece) => piece.side === field.of).forEach((piece) => piece.draw());
      list.replaceChildren(...field.marked.map((span) => {
        const words = text(span), shown = words.length > 60 ? words.slice(0, 60) + "…" : words;
        const remove = make("button", { type: "button", class: "chip-remove", "aria-label": "Remove " + span.label + " from “" + shown + "”" }, ["×"]);
        remove.addEventListener("click", () => field.keep(field.marked.filter((one) => one !== span)));
        return make("li", {}, [make("span", { class: "span-label tint-" + (field.options.findIndex((one) => one.value === span.label) % 6) }, [span.label]), make("q", { class: "plain" }, [shown]), remove]);
      }));
    };
    field.keep = (spans) => { field.marked = spans.sort((a, b) => a.start - b.start || a.end - b.end); field.show(); form.changed(); };
    field.take = (place) => {
      const selected = picked(field.of);
      if (!selected) {
        form.mark(field.name, "Select some text of the " + (field.of === "request" ? "request" : "answer") + " first.");
        return;
      }
      const span = { start: selected.start, end: selected.end, label: field.options[place].value };
      form.unmark(field);
      if (!field.marked.some((one) => one.start === span.start && one.end === span.end && one.label === span.label)) field.keep([...field.marked, span]);
      selected.piece.setCaret(span.end);
      chosen = null;
    };
    field.surface = () => (pieces.find((piece) => piece.side === field.of && piece.element.isContentEditable) || {}).element;
    field.read = () => field.marked.map((span) => ({ start: span.start, end: span.end, label: span.label }));
    field.write = (value) => {
      const labels = field.options.map((one) => one.value);
      field.marked = (value || []).filter((span) => labels.includes(span.label)).map((span) => ({ start: span.start, end: span.end, label: span.label }));
      field.show();
    };
  };
  relabel.forgetSpans = function () { pieces = []; layers = []; chosen = null; };

  /* Takes over the places of the texts once React has put them on the screen. */
  relabel.mountPieces = function (held, done) {
    const find = () => held.surfaces.map((_, place) => document.querySelector('#relabel-case [data-surface="' + place + '"]'));
    const mount = function (elements) {
      pieces = held.surfaces.map((shown, place) => new Piece(shown, elements[place]));
      pieces.forEach((piece) => { piece.listen(); piece.draw(); });
      done();
    };
    const ready = () => document.querySelector('#relabel-case [data-serial="' + held.serial + '"]') && find().every(Boolean);
    if (ready()) { mount(find()); return; }
    const observer = new MutationObserver(function () {
      if (ready()) { observer.disconnect(); window.clearTimeout(patience); mount(find()); }
    });
    const patience = window.setTimeout(() => observer.disconnect(), PATIENCE_MS);
    observer.observe(document.getElementById("relabel-case"), { childList: true, subtree: true });
  };
  relabel.redraw = function () { pieces.forEach((piece) => piece.draw()); };
})();
