/* The form of a label schema: one field after the other, answered with the keyboard. All text is set as text, never as HTML. */
(function () {
  "use strict";
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  const RATING_KEYS = { good: "G", bad: "B" };
  const WITH_OPTIONS = ["rating", "scale", "choice", "multiple_choice", "preference"];
  const MOST_BUTTONS = 10;

  /* An element with properties and children; a string is a text. */
  function make(tag, properties, children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") element.className = value;
      else element.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children || []) if (child !== null && child !== undefined) element.append(child);
    return element;
  }
  function keyHint(text) { return make("kbd", { class: "key", "aria-hidden": "true" }, [text]); }
  function digitOf(place) { return place < 9 ? String(place + 1) : place === 9 ? "0" : null; }

  class Form {
    /* `changed` is called after every answer; `prefix` keeps the ids of two forms apart. */
    constructor(root, held, prefix, changed) {
      this.root = root; this.held = held; this.prefix = prefix; this.changed = changed || function () {};
      this.fields = held.fields.map((field, place) => ({ ...field, place, id: prefix + "-field-" + place, keys: {} }));
      this.current = 0;
      root.replaceChildren(...this.fields.map((field) => this.build(field)), this.buildComment());
      this.makeCurrent(Math.max(0, this.fields.findIndex((field) => WITH_OPTIONS.includes(field.type) || field.type === "spans")));
      root.oninput = () => this.changed();
    }

    build(field) {
      const build = WITH_OPTIONS.includes(field.type) ? this.buildOptions
        : { spans: this.buildSpans, text: this.buildText, corrected_answer: this.buildCorrected, tags: this.buildTags }[field.type];
      field.element = build.call(this, field);
      field.element.addEventListener("focusin", () => this.makeCurrent(field.place));
      field.element.addEventListener("input", () => this.unmark(field));
      field.element.addEventListener("pointerdown", () => this.makeCurrent(field.place));
      field.element.dataset.field = field.name;
      field.error = make("p", { class: "field-error", role: "alert", hidden: true });
      field.element.append(field.error);
      return field.element;
    }
    head(field, tag, properties, more) {
      const needed = field.required ? make("span", { class: "needed" }, ["required"]) : null;
      return make(tag, properties, [make("span", {}, [field.title]), needed, more]);
    }
    help(field) {
      const words = [field.help];
      if (field.good_from && field.scale) words.push(field.good_from === field.scale ? field.scale + " counts as good." : field.good_from + " to " + field.scale + " count as good.");
      const text = words.filter(Boolean).join(" ");
      return text ? make("p", { class: "field-help", id: field.id + "-help" }, [text]) : null;
    }
    hints(field) {
      if (!field.suggestions.length || WITH_OPTIONS.includes(field.type)) return null;
      const words = field.suggestions.map((one) => "“" + one.value + "” by " + one.why);
      return make("p", { class: "field-help" }, ["Suggested: " + words.join(", ")]);
    }

    buildOptions(field) {
      const many = field.type === "multiple_choice";
      const help = this.help(field);
      const box = make("fieldset", { class: "field", "aria-describedby": help ? help.id : null, tabindex: "-1" }, [this.head(field, "legend"), help]);
      if (field.options.length > MOST_BUTTONS && (field.type === "scale" || field.type === "rating")) {
        field.number = make("input", { class: "entry", type: "number", min: 1, max: field.scale, step: 1, id: field.id, inputmode: "numeric", "aria-label": field.title + ", 1 to " + field.scale });
        box.append(field.number);
        field.read = () => (field.number.value === "" ? null : Number(field.number.value));
        field.write = (value) => { field.number.value = value === null ? "" : value; };
        return box;
      }
      const row = make("div", { class: "options options-" + field.type + (field.scale ? " options-scale" : "") });
      field.inputs = field.options.map((option, place) => {
        const letter = field.type === "rating" && !field.scale ? RATING_KEYS[option.value] : null;
        const key = letter || (field.type === "preference" && option.value === "tie" ? "0" : digitOf(place));
        if (key && !letter && !(key in field.keys)) field.keys[key] = place;
        const id = letter && this.prefix === "relabel" ? "relabel-" + option.value : field.id + "-" + place;
        const input = make("input", { class: "visually-hidden", type: many ? "checkbox" : "radio", name: field.id, id: id, value: place, "aria-keyshortcuts": key });
        const why = field.suggestions.filter((one) => one.value === option.value).map((one) => one.why);
        row.append(make("label", { class: "option" + (letter ? " option-" + option.value : ""), for: id }, [
          input, make("span", { class: "option-title" }, [option.title]),
          why.length ? make("span", { class: "option-why" }, ["suggested: " + why.join(", ")]) : null,
          key && (letter || field.keys[key] === place) ? keyHint(key) : null,
        ]));
        return input;
      });
      box.append(row);
      const values = () => field.inputs.filter((input) => input.checked).map((input) => field.options[Number(input.value)].value);
      field.read = () => (many ? values() : values()[0] ?? null);
      field.write = (value) => {
        const wanted = many ? value || [] : [value];
        field.inputs.forEach((input) => { input.checked = wanted.includes(field.options[Number(input.value)].value); });
      };
      return box;
    }

    buildText(field) {
      const help = this.help(field);
      const area = make("textarea", { class: "entry", rows: 2, id: field.id, "aria-describedby": help ? help.id : null });
      field.input = area;
      field.read = () => (area.value.trim() ? area.value : null);
      field.write = (value) => { area.value = value || ""; };
      return make("div", { class: "field" }, [this.head(field, "label", { for: field.id }), help, area, this.hints(field)]);
    }

    buildCorrected(field) {
      const own = this.prefix === "relabel";
      const id = own ? "relabel-corrected" : field.id;
      const help = this.help(field);
      const area = make("textarea", { class: "entry entry-tall", rows: 3, id: id, placeholder: "What the model should have answered", "aria-describedby": help ? help.id : null });
      const edit = make("button", { type: "button", class: "button button-quiet button-small", id: own ? "relabel-edit" : null, "aria-keyshortcuts": "E" },
        [make("span", { class: "icon icon-edit", "aria-hidden": "true" }), "Edit", keyHint("E")]);
      const take = make("button", { type: "button", class: "button button-quiet button-small", id: own ? "relabel-user-wrote" : null, "aria-keyshortcuts": "W", hidden: true },
        [make("span", { class: "icon icon-user", "aria-hidden": "true" }), "Use what the user wrote", keyHint("W")]);
      const diff = make("div", { class: "diff plain", role: "group", "aria-label": "Changes against the recorded answer", hidden: true });
      const answer = this.held.answer || "";
      const isChanged = () => area.value.trim() !== "" && area.value.trim() !== answer.trim();
      const grow = () => { area.style.height = "auto"; area.style.height = Math.min(area.scrollHeight + 2, 420) + "px"; };
      const show = () => {
        grow();
        diff.hidden = !(isChanged() && answer);
        if (!diff.hidden) diff.replaceChildren(...relabel.diff(answer, area.value).map(([kind, text]) => make(kind, {}, [text])));
      };
      area.addEventListener("input", show);
      field.input = area;
      field.start = () => {
        if (!area.value && answer) { area.value = answer; show(); this.changed(); }
        area.focus();
        area.setSelectionRange(area.value.length, area.value.length);
      };
      edit.addEventListener("click", field.start);
      /* What a user says would have been right; nothing is taken over until somebody asks for it. */
      field.offer = (text) => { field.offered = text; take.hidden = !text || text.trim() === answer.trim(); };
      field.takeOver = () => {
        if (take.hidden) return false;
        area.focus();
        area.select();
        // As if it were typed, so that the browser's undo brings back what was there.
        if (!document.execCommand("insertText", false, field.offered)) { area.value = field.offered; area.dispatchEvent(new Event("input", { bubbles: true })); }
        return true;
      };
      take.addEventListener("click", field.takeOver);
      field.read = () => (isChanged() ? area.value : null);
      field.raw = () => area.value || null;
      field.write = (value) => { area.value = value || ""; show(); };
      this.corrected = field;
      return make("div", { class: "field" }, [make("div", { class: "label-row" }, [this.head(field, "label", { for: id }), make("div", { class: "offers" }, [take, edit])]), help, area, diff]);
    }

    buildTags(field) {
      const help = this.help(field);
      const chips = make("ul", { class: "chips", "aria-label": field.title });
      const input = make("input", { class: "entry", type: "text", id: field.id, autocomplete: "off", placeholder: "Type a tag, then Enter", maxlength: 100, "aria-describedby": help ? help.id : null });
      const offered = make("div", { class: "chips offered" });
      let tags = [];
      const show = () => {
        chips.replaceChildren(...tags.map((tag) => {
          const remove = make("button", { type: "button", class: "chip-remove", "aria-label": "Remove the tag " + tag }, ["×"]);
          remove.addEventListener("click", () => { tags = tags.filter((one) => one !== tag); show(); this.changed(); input.focus(); });
          return make("li", { class: "chip" }, [make("span", {}, [tag]), remove]);
        }));
        chips.hidden = !tags.length;
        const typed = input.value.trim().toLowerCase();
        field.keys = {};
        const left = field.options.filter((one) => !tags.includes(one.value) && one.title.toLowerCase().includes(typed)).slice(0, 12);
        offered.replaceChildren(...left.map((one, place) => {
          const digit = digitOf(place);
          if (digit) field.keys[digit] = place;
          const button = make("button", { type: "button", class: "chip chip-offer" }, [one.title, digit ? keyHint(digit) : null]);
          button.addEventListener("click", () => add(one.value));
          return button;
        }));
        field.offered = left;
      };
      const add = (tag) => {
        const words = tag.trim();
        if (words && !tags.includes(words)) tags = [...tags, words];
        input.value = ""; show(); this.changed();
      };
      field.take = (place) => add(field.offered[place].value);
      input.addEventListener("input", show);
      input.addEventListener("keydown", (event) => {
        if (event.isComposing) return;
        if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey && input.value.trim()) || event.key === ",") { event.preventDefault(); add(input.value); }
        else if (event.key === "Backspace" && !input.value && tags.length) { tags = tags.slice(0, -1); show(); this.changed(); }
      });
      field.input = input;
      // A tag that is typed and not yet confirmed is meant as well.
      field.read = () => [...new Set([...tags, input.value.trim()].filter(Boolean))];
      field.write = (value) => { tags = (value || []).slice(); input.value = ""; show(); };
      show();
      return make("div", { class: "field" }, [this.head(field, "label", { for: field.id }), help, chips, input, offered, this.hints(field)]);
    }

    buildSpans(field) {
      const help = this.help(field);
      const box = make("fieldset", { class: "field", "aria-describedby": help ? help.id : null, tabindex: "-1" }, [
        this.head(field, "legend"), help,
        make("p", { class: "field-help" }, ["Select text of the " + (field.of === "request" ? "request" : "answer") + " with the mouse, or with Shift and the arrow keys, then press a number."]),
      ]);
      const row = make("div", { class: "options options-spans" });
      field.options.forEach((option, place) => {
        const key = digitOf(place);
        if (key) field.keys[key] = place;
        const button = make("button", { type: "button", class: "option span-label tint-" + (place % 6), "aria-keyshortcuts": key }, [make("span", { class: "option-title" }, [option.title]), key ? keyHint(key) : null]);
        // The selection must outlive the press.
        button.addEventListener("mousedown", (event) => event.preventDefault());
        button.addEventListener("click", () => field.take(place));
        row.append(button);
      });
      const list = make("ul", { class: "span-list", "aria-live": "polite" });
      box.append(row, list);
      relabel.spans(field, this, list, make);
      return box;
    }

    buildComment() {
      const id = this.prefix + "-comment";
      this.comment = make("input", { class: "entry", type: "text", id: id, placeholder: "Optional; with Skip, the reason", maxlength: 10000 });
      const box = make("div", { class: "field" }, [make("label", { for: id }, ["Comment"]), this.comment]);
      box.hidden = this.prefix !== "relabel";
      return box;
    }

    makeCurrent(place) {
      this.current = place;
      this.fields.forEach((field) => field.element.classList.toggle("current", field.place === place));
    }
    focus(place) {
      const field = this.fields[place];
      this.makeCurrent(place);
      const inputs = field.inputs || [];
      const target = field.input || field.number || inputs.find((input) => input.checked) || inputs[0] || (field.surface && field.surface()) || field.element;
      target.focus({ preventScroll: true });
      field.element.scrollIntoView({ block: "nearest" });
    }
    move(step) { this.focus((this.current + step + this.fields.length) % this.fields.length); }
    /* On to the next field that is answered by keys and has no answer; where there is none, nothing moves. */
    advance(from) {
      const next = this.fields.find((field) => field.place > from && (WITH_OPTIONS.includes(field.type) || field.type === "spans") && isEmpty(field.read()));
      if (next) this.focus(next.place);
    }
    choose(place, option) {
      const field = this.fields[place];
      if (field.inputs) {
        const input = field.inputs[option];
        const was = input.checked;
        input.checked = field.type === "multiple_choice" ? !was : !(was && !field.required);
        this.changed();
        this.unmark(field);
        if (field.type === "multiple_choice") input.focus({ preventScroll: true });
        else if (input.checked) { this.makeCurrent(place); this.advance(place); }
      } else if (field.take) { field.take(option); this.unmark(field); }
    }
    /* A key of the current field, or G and B anywhere; says whether there was one. */
    press(key) {
      const rating = this.fields.find((field) => field.type === "rating" && !field.scale);
      const letter = key.toUpperCase();
      if (rating && (letter === "G" || letter === "B")) { this.choose(rating.place, letter === "G" ? 0 : 1); return true; }
      const field = this.fields[this.current];
      if (!(key in field.keys)) return false;
      this.choose(field.place, field.keys[key]);
      return true;
    }

    values() {
      const found = {};
      for (const field of this.fields) { const value = field.read(); if (!isEmpty(value)) found[field.name] = value; }
      return found;
    }
    /* What has been entered, even where it is no answer yet. */
    draft() {
      const found = {};
      for (const field of this.fields) { const value = (field.raw || field.read)(); if (!isEmpty(value)) found[field.name] = value; }
      return { values: found, comment: this.comment.value };
    }
    write(values, comment) {
      for (const field of this.fields) { this.unmark(field); field.write(field.name in (values || {}) ? values[field.name] : null); }
      this.comment.value = comment || "";
      this.changed();
    }
    mark(name, words) {
      const field = this.fields.find((one) => one.name === name);
      if (!field) return;
      field.error.textContent = words;
      field.error.hidden = false;
      field.element.classList.add("wrong");
      this.focus(field.place);
    }
    unmark(field) { field.error.hidden = true; field.element.classList.remove("wrong"); }
  }

  function isEmpty(value) { return value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length); }

  relabel.Form = Form;
  relabel.isEmpty = isEmpty;
})();
