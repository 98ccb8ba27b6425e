/* The chosen experiment lives in the address. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  const functions = {
    experimentName: function (search) { return new URLSearchParams(search || "").get("experiment"); },
    chooseExperiment: function (clicks, search) {
      const one = (window.dash_clientside.callback_context.triggered || [])[0];
      if (!one || !one.value) return NONE();
      const id = JSON.parse(one.prop_id.replace(/\.n_clicks$/, ""));
      return window.servelens.withParameter(search, "experiment", id.name);
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
})();
