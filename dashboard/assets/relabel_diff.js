/* What differs between two texts, word by word: the longest common subsequence, after what both begin and end with. */
(function () {
  "use strict";
  const relabel = (window.servelensRelabel = window.servelensRelabel || {});
  const MOST_CELLS = 1500000;

  function words(text) { return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || []; }

  /* Parts of both texts in order, each as [kind, text]: "span" of both, "del" only of the first, "ins" only of the second. */
  relabel.diff = function (before, after) {
    const a = words(before), b = words(after), parts = [];
    const put = function (kind, list) {
      const text = list.join("");
      if (!text) return;
      const last = parts[parts.length - 1];
      if (last && last[0] === kind) last[1] += text; else parts.push([kind, text]);
    };
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    put("span", a.slice(0, start));
    const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end);
    if (x.length * y.length > MOST_CELLS) { put("del", x); put("ins", y); }
    else middle(x, y, put);
    put("span", a.slice(a.length - end));
    return parts;
  };

  function middle(x, y, put) {
    const width = y.length + 1, table = new Uint32Array((x.length + 1) * width);
    for (let i = x.length - 1; i >= 0; i--) {
      for (let j = y.length - 1; j >= 0; j--) {
        table[i * width + j] = x[i] === y[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    let i = 0, j = 0;
    while (i < x.length && j < y.length) {
      if (x[i] === y[j]) { put("span", [x[i]]); i++; j++; }
      else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) { put("del", [x[i]]); i++; }
      else { put("ins", [y[j]]); j++; }
    }
    put("del", x.slice(i));
    put("ins", y.slice(j));
  }
})();
