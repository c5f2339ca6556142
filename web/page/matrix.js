// matrix.js - a matrix of queries (rows) and keys (columns) as a table with a heat.
import { element } from "./controls.js";

const STRONGEST = 0.5; // of the heat's colour: text stays readable on it

function cellOf(x, most, hidden) {
  if (hidden) return element("td", { class: "hidden", title: "hidden" }, "hidden");
  const strength =
    most > 0 && Number.isFinite(x) ? (STRONGEST * Math.min(Math.abs(x), most)) / most : 0;
  const text = Number.isNaN(x) ? "NaN" : Math.abs(x) >= 1000 ? x.toPrecision(3) : x.toFixed(2);
  return element("td", { style: `background: rgba(var(--heat), ${strength.toFixed(3)})` }, text);
}

/** values: rows x columns; hidden(i, j) hatches; more: a last column [name, values]. */
export function matrixOf({ title, note, rows, columns, values, hidden = () => false, more }) {
  const shown = values.filter(
    (x, n) => Number.isFinite(x) && !hidden(Math.floor(n / columns.length), n % columns.length),
  );
  const most = shown.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
  const head = element(
    "tr",
    {},
    element("td", {}),
    ...columns.map((name) => element("th", { scope: "col" }, name)),
    ...(more ? [element("th", { scope: "col" }, more[0])] : []),
  );
  const body = rows.map((name, i) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      ...columns.map((_, j) => cellOf(values[i * columns.length + j], most, hidden(i, j))),
      ...(more ? [cellOf(more[1][i], most, false)] : []),
    ),
  );
  return element(
    "section",
    { class: "matrix" },
    element("h3", {}, title),
    element("p", { class: "note" }, note),
    element(
      "div",
      { class: "scroll", role: "region", tabindex: "0", "aria-label": title },
      element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)),
    ),
  );
}
