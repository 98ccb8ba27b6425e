/* The Quality page's changes: silences and reports, sent to the HTTP API in the viewer's own name. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };

  function send(method, address, body) {
    const options = { method: method, headers: { "content-type": "application/json" } };
    if (body !== undefined) options.body = JSON.stringify(body);
    return window.fetch(address, options).then(
      function (answer) {
        if (answer.ok) return null;
        return answer.json().then(
          function (problem) {
            const field = problem.field ? problem.field + ": " : "";
            return field + problem.detail + (problem.fix ? ". " + problem.fix : "");
          },
          function () { return "The console answered " + answer.status + "."; }
        );
      },
      function () { return "The console could not be reached."; }
    );
  }
  /* The id of the button that was clicked; a button that was only drawn has not been. */
  function clicked() {
    const one = (window.dash_clientside.callback_context.triggered || [])[0];
    return one && one.value ? JSON.parse(one.prop_id.replace(/\.n_clicks$/, "")) : null;
  }
  /* In a pattern of a shell, a character in brackets is itself. */
  function exactly(text) { return text.replace(/[*?[]/g, "[$&]"); }

  const functions = {
    openSilence: function () {
      const target = clicked();
      if (!target) return [NONE(), NONE(), NONE(), NONE()];
      const words = target.rule + (target.slice ? " (" + target.slice + ")" : "");
      return [true, { rule: target.rule, endpoint: target.endpoint, slice: target.slice }, "Tell nobody of " + words + ".", ""];
    },
    silence: function (clicks, submits, target, minutes, reason) {
      if (!target || !(clicks || submits)) return [NONE(), NONE(), NONE(), NONE()];
      if (!(reason || "").trim()) return [NONE(), NONE(), "Say why, so that others know.", NONE()];
      const body = { rule: exactly(target.rule), endpoint: exactly(target.endpoint), minutes: Number(minutes), reason: reason };
      if (target.slice) body.slice = exactly(target.slice);
      return send("POST", "/api/alerts/silences", body).then(function (problem) {
        return problem === null ? [false, "", "", Date.now()] : [NONE(), NONE(), problem, NONE()];
      });
    },
    endSilence: function () {
      const target = clicked();
      if (!target) return [NONE(), NONE()];
      return send("DELETE", "/api/alerts/silences/" + target.id).then(function (problem) {
        return [problem === null ? "" : problem, Date.now()];
      });
    },
    askForReport: function (clicks, request) {
      if (!clicks || !request) return [NONE(), NONE()];
      return send("POST", "/api/drift/reports", request).then(function (problem) {
        return [problem === null ? "" : problem, Date.now()];
      });
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
