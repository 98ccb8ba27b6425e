/* Another answer is asked for while the annotator goes on; when it is there, the case is shown anew as soon as nothing else is under way. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  let asking = null;
  let come = null;
  let said = null;
  let ticking = null;

  function element(id) { return document.getElementById(id); }
  function isOf(held, one) { return Boolean(held && one) && held.id === one.id && held.annotator === one.annotator; }

  function render() {
    const place = element("relabel-another-place"), words = element("relabel-asking");
    if (!place || !words) { window.clearInterval(ticking); ticking = null; return; }
    const held = relabel.held();
    place.hidden = !(held && held.compares && !held.adjudication);
    element("relabel-another").disabled = Boolean(asking);
    let text = "";
    if (asking) {
      const whom = isOf(held, asking) ? "Asking the endpoint" : "Asking the endpoint for case " + asking.id;
      text = whom + "… " + Math.round((Date.now() - asking.since) / 1000) + " s";
    } else if (isOf(held, said)) text = "The endpoint said again what is there already.";
    if (words.textContent !== text) words.textContent = text;
    if (asking && !ticking) ticking = window.setInterval(render, 1000);
    if (!asking && ticking) { window.clearInterval(ticking); ticking = null; }
  }
  /* Called whenever another case is on the desk, or nothing is under way any more. */
  relabel.atRest = function () {
    render();
    if (!come) return;
    // A case that has left the desk shows its answers when it is there again.
    if (!isOf(relabel.held(), come)) { if (!relabel.isBusy()) come = null; return; }
    if (relabel.send("compare")) come = null;
  };

  const functions = {
    anotherAnswer: function (clicks) {
      const held = relabel.held();
      if (!clicks || !held || asking) return NONE();
      asking = { id: held.id, annotator: held.annotator, since: Date.now() };
      said = null;
      render();
      return { id: held.id, annotator: held.annotator, at: asking.since };
    },
    answered: function (data, problem) {
      const by = (window.dash_clientside.callback_context.triggered || []).map((one) => one.prop_id);
      const isNew = by.includes("relabel-answered.data") && data;
      if ((isNew && data.asked) || (by.includes("relabel-another-problem.children") && problem)) asking = null;
      if (isNew && data.added) come = data;
      else if (isNew) said = data;
      relabel.atRest();
      return NONE();
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
