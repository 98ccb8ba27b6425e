/* The queue's pages, the side panel's forms, and the export's dialog. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  let gold = null;

  function fired() { return (window.dash_clientside.callback_context.triggered || []).filter((one) => one.value !== undefined); }
  function text(id) { const field = document.getElementById(id); return field ? field.value : ""; }

  const functions = {
    /* On, back, and to the first page when anything else has changed. */
    turnPage: function () {
      const [next, cursors] = [arguments[arguments.length - 1], arguments[arguments.length - 2]];
      const by = fired().map((one) => one.prop_id);
      if (by.includes("relabel-following.n_clicks")) return next ? cursors.concat([next]) : NONE();
      if (by.includes("relabel-previous.n_clicks")) return cursors.length > 1 ? cursors.slice(0, -1) : NONE();
      return cursors.length > 1 ? [null] : NONE();
    },
    openExport: function (clicks) { return clicks ? true : NONE(); },
    goldForm: function (form) {
      const root = document.getElementById("relabel-gold-fields");
      if (!root || !form) return NONE();
      if (gold && gold.held.id === form.id && gold.root === root && root.childElementCount) return NONE();
      gold = new relabel.Form(root, form, "relabel-gold");
      return NONE();
    },
    panelCommand: function () {
      const one = fired()[0], shown = arguments[arguments.length - 1];
      if (!one || !one.value) return NONE();
      return {
        action: one.prop_id.replace("relabel-do-", "").replace(".n_clicks", ""), case: shown, name: text("relabel-name"), at: Date.now(),
        comment: text("relabel-remark"), from: text("relabel-from"), to: text("relabel-to"), why: text("relabel-why"),
        values: gold ? gold.values() : {},
      };
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
