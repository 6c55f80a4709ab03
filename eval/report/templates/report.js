"use strict";
// Tables sort by a click on a column's name: up, down, and back to the order they were written in.
(() => {
  const SCALE = { k: 1e3, M: 1e6, B: 1e9 };
  const ORDER = ["none", "ascending", "descending"];

  // "0.123 [0.1, 0.2]" counts as 0.123, "1.3B" as 1.3e9; anything else is words.
  function value(text) {
    const found = /^([-+\u2212]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)([kMB]?)(?:\s*%)?(?:\s*\[.*\])?$/.exec(text);
    return found ? Number(found[1].replace("\u2212", "-")) * (SCALE[found[2]] ?? 1) : NaN;
  }

  function sort(table, column, order) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => {
      const text = row.cells[column].textContent.trim();
      return { row, text, number: value(text), place: Number(row.dataset.place) };
    });
    const filled = rows.filter((one) => one.text);
    const numeric = filled.every((one) => !Number.isNaN(one.number));
    const sign = order === "descending" ? -1 : 1;
    rows.sort((a, b) => {
      if (order !== "none") {
        if (!a.text !== !b.text) return a.text ? -1 : 1; // Empty cells stay last both ways.
        const by = numeric ? a.number - b.number || 0 : a.text.localeCompare(b.text, "en", { numeric: true });
        if (by) return sign * by;
      }
      return a.place - b.place;
    });
    body.append(...rows.map((one) => one.row));
  }

  for (const table of document.querySelectorAll("table")) {
    Array.from(table.tBodies[0].rows).forEach((row, place) => { row.dataset.place = place; });
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = ORDER[(ORDER.indexOf(head.getAttribute("aria-sort")) + 1) % ORDER.length];
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", next);
        sort(table, column, next);
      });
    });
  }
})();
