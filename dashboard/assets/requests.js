/* The request grid: refetch on a new filter, and the side panel that the address opens. */
(function () {
  "use strict";
  const NONE = function () { return window.dash_clientside.no_update; };
  function parameter(search) { return new URLSearchParams(search || "").get("request"); }

  function grid(id) {
    try { return window.dash_ag_grid && window.dash_ag_grid.getApi(id); } catch (error) { return null; }
  }

  const functions = {
    refetch: function () {
      const api = grid("requests-grid");
      if (!api) return NONE();
      const fired = (window.dash_clientside.callback_context.triggered || []).map(function (one) { return one.prop_id; });
      if (fired.length === 1 && fired[0] === "requests-refresh.n_clicks") api.refreshInfiniteCache();
      else api.purgeInfiniteCache();
      return NONE();
    },
    openRequest: function (rows, search) {
      if (!rows || !rows.length) return NONE();
      const next = window.servelens.withParameter(search, "request", rows[0].databricks_request_id);
      return next === (search || "") ? NONE() : next;
    },
    requestDrawer: function (search) {
      const open = Boolean(parameter(search));
      // On the way to another page the grid is going already, and would complain.
      if (!open && window.location.pathname.startsWith("/requests")) { const api = grid("requests-grid"); if (api) api.deselectAll(); }
      return open;
    },
    requestId: function (search) { return parameter(search); },
    anotherRequest: function () { return [null, "", null]; },
    closeRequest: function (opened, search) {
      if (opened || !parameter(search)) return NONE();
      return window.servelens.withParameter(search, "request", null);
    },
  };
  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.servelens = Object.assign(window.dash_clientside.servelens || {}, functions);

  const tools = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  tools.servelensNumber = function (value) {
    if (value === null || value === undefined) return "";
    const size = Math.abs(value);
    if (size !== 0 && size < 0.001) return value.toExponential(1);
    return new Intl.NumberFormat("en", { maximumSignificantDigits: 3 }).format(value);
  };
  tools.servelensTheme = function (theme) {
    return theme.withParams({
      fontFamily: "var(--sans)", fontSize: 13, headerFontSize: 12, headerFontWeight: 550,
      backgroundColor: "var(--surface)", foregroundColor: "var(--ink)", headerTextColor: "var(--ink-3)",
      headerBackgroundColor: "var(--surface)", borderColor: "var(--line)", rowHoverColor: "var(--raised)",
      selectedRowBackgroundColor: "var(--accent-soft)", accentColor: "var(--accent)", oddRowBackgroundColor: "var(--surface)",
      wrapperBorderRadius: 10, headerColumnBorder: false, columnBorder: false, cellHorizontalPadding: 14,
      menuBackgroundColor: "var(--surface)", inputBackgroundColor: "var(--surface)",
    });
  };
})();
