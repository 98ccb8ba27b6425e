/* The view in the address bar, the colour scheme, and the navigation. Runs before the first paint of the page. */
(function () {
  "use strict";
  const SCHEME_KEY = "mantine-color-scheme-value";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function storedScheme() {
    try { return window.localStorage.getItem(SCHEME_KEY); } catch (error) { return null; }
  }
  function currentScheme() {
    const stored = storedScheme();
    if (stored === "light" || stored === "dark") return stored;
    return dark.matches ? "dark" : "light";
  }
  function showScheme(scheme) {
    document.documentElement.setAttribute("data-mantine-color-scheme", scheme);
  }
  showScheme(currentScheme());
  dark.addEventListener("change", function () {
    if (storedScheme() === "light" || storedScheme() === "dark") return;
    showScheme(currentScheme());
    if (window.dash_clientside.set_props) window.dash_clientside.set_props("scheme", { data: currentScheme() });
  });

  const NONE = function () { return window.dash_clientside.no_update; };
  const OWN = ["endpoint", "range", "from", "to", "variants"];

  function same(a, b) { return JSON.stringify(a) === JSON.stringify(b); }

  function read(search) {
    const all = new URLSearchParams(search || "");
    const list = (all.get("variants") || "").split(",").filter(Boolean);
    return { endpoint: all.get("endpoint"), range: all.get("range"), from: all.get("from"), to: all.get("to"), variants: list };
  }
  function write(search, view, settings) {
    const old = new URLSearchParams(search || "");
    const next = new URLSearchParams();
    if (view.endpoint && view.endpoint !== settings.order[0]) next.set("endpoint", view.endpoint);
    if (view.from && view.to) { next.set("from", view.from); next.set("to", view.to); }
    else if (view.range && view.range !== settings.range) next.set("range", view.range);
    if (view.variants.length) next.set("variants", view.variants.join(","));
    old.forEach(function (value, key) { if (!OWN.includes(key)) next.set(key, value); });
    const text = next.toString();
    return text ? "?" + text : "";
  }
  function shortTime(text) {
    return new Date(text).toLocaleString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  }
  function withParameter(search, name, value) {
    const all = new URLSearchParams(search || "");
    if (value === null || value === undefined || value === "") all.delete(name); else all.set(name, value);
    const text = all.toString();
    return text ? "?" + text : "";
  }

  const functions = {
    view: function (search, endpoint, range, variants, settings, before) {
      const context = window.dash_clientside.callback_context;
      const fired = (context.triggered || []).map(function (one) { return one.prop_id; });
      const fromPage = before && fired.length > 0 && !fired.includes("url.search");
      let view;
      if (fromPage) {
        view = { endpoint: endpoint, range: range, from: null, to: null, variants: variants || [] };
        if (range === "custom") { view.range = before.range; view.from = before.from; view.to = before.to; }
        if (endpoint !== before.endpoint) view.variants = [];
      } else {
        view = read(search);
      }
      if (!(view.endpoint in settings.endpoints) && view.endpoint !== "_unrouted") view.endpoint = settings.order[0] || null;
      if (!(view.range in settings.ranges)) view.range = settings.range;
      if (!(view.from && view.to && !isNaN(Date.parse(view.from)) && !isNaN(Date.parse(view.to)))) { view.from = null; view.to = null; }
      view.zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
      const ranges = Object.keys(settings.ranges).map(function (key) { return { value: key, label: settings.ranges[key] }; });
      if (view.from) ranges.unshift({ value: "custom", label: shortTime(view.from) + " – " + shortTime(view.to) });
      const arms = (settings.endpoints[view.endpoint] || []).slice();
      view.variants.forEach(function (arm) { if (!arms.includes(arm)) arms.push(arm); });
      const next = write(search, view, settings);
      return [
        fromPage && next !== (search || "") ? next : NONE(),
        same(view, before) ? NONE() : view,
        view.endpoint,
        view.from ? "custom" : view.range,
        ranges,
        view.variants,
        arms,
      ];
    },

    navigation: function (pathname, _view, search) {
      const kept = new URLSearchParams();
      new URLSearchParams(search || "").forEach(function (value, key) { if (OWN.includes(key)) kept.set(key, value); });
      const tail = kept.toString() ? "?" + kept.toString() : "";
      const paths = ["/", "/requests", "/experiments", "/quality", "/relabel"];
      const here = (pathname || "/").replace(/\/+$/, "") || "/";
      document.body.dataset.page = here;
      document.title = ({ "/": "Overview", "/requests": "Requests", "/experiments": "Experiments", "/quality": "Quality", "/relabel": "Relabel" }[here] || "Not found") + " · servelens";
      return paths.map(function (path) { return path + tail; })
        .concat(paths.map(function (path) { return path === here ? "nav-link active" : "nav-link"; }));
    },

    scheme: function (clicks) {
      let scheme = currentScheme();
      if (clicks) {
        scheme = scheme === "dark" ? "light" : "dark";
        try { window.localStorage.setItem(SCHEME_KEY, scheme); } catch (error) { /* private mode: not remembered */ }
      }
      showScheme(scheme);
      return scheme;
    },

    share: function (clicks, view) {
      if (!clicks || !view) return NONE();
      const range = { "15m": 15, "1h": 60, "6h": 360, "24h": 1440, "7d": 10080, "30d": 43200 };
      const fixed = Object.assign({}, view);
      if (!fixed.from) {
        const now = new Date();
        fixed.to = now.toISOString();
        fixed.from = new Date(now.getTime() - range[view.range] * 60000).toISOString();
      }
      const link = window.location.origin + window.location.pathname + write(window.location.search, fixed, { order: [null], range: null });
      // Browsers have a clipboard only on https and on the loopback address.
      if (!navigator.clipboard) { window.prompt("Copy this link", link); return NONE(); }
      navigator.clipboard.writeText(link).then(
        function () { window.dash_clientside.set_props("share-label", { children: "Copied" }); },
        function () { window.prompt("Copy this link", link); }
      );
      window.setTimeout(function () { window.dash_clientside.set_props("share-label", { children: "Copy link" }); }, 1800);
      return NONE();
    },

    /* Dragging over a chart asks for that time; the axis is in the viewer's own zone, as Date.parse assumes. */
    zoom: function () {
      const search = arguments[arguments.length - 1];
      const context = window.dash_clientside.callback_context;
      for (const one of context.triggered || []) {
        const from = one.value && one.value["xaxis.range[0]"];
        const to = one.value && one.value["xaxis.range[1]"];
        if (!from || !to) continue;
        const start = new Date(String(from).replace(" ", "T")), end = new Date(String(to).replace(" ", "T"));
        if (isNaN(start) || isNaN(end) || end - start < 2000) continue;
        const all = new URLSearchParams(search || "");
        all.delete("range");
        all.set("from", start.toISOString());
        all.set("to", end.toISOString());
        return "?" + all.toString();
      }
      return NONE();
    },
  };

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);
  window.servelens = { withParameter: withParameter };
})();
