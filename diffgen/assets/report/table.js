// @ts-check
// The table of all cells; a click on a heading sorts it.

import { DATA } from "./data.js";
import { byId, isFront, isRecommended, make } from "./page.js";
import { openCell } from "./dialog.js";

const COLUMNS = [
  { name: "label", text: "Sampler", title: "sampler + schedule" },
  { name: "steps", text: "Steps" },
  ...DATA.axes.map((label) => ({ name: label, text: label[0].toUpperCase() + label.slice(1) })),
  { name: "nfe", text: "NFE", title: "network evaluations" },
  { name: "seconds", text: "Seconds", title: "sampling of one picture, median of the repeats" },
  ...DATA.metrics.map((one) => ({ name: one.name, text: one.label, title: one.meaning, best: one.moreIsBetter })),
];
let sorted = { name: null, ascending: true };

function valueIn(cell, name) {
  return name === "label" ? `${cell.sampler} ${cell.schedule}` : cell.values[name];
}

// What has no such figure comes last, whichever way the column is sorted.
function sortKeys(keys, { name, ascending }) {
  if (!name) return keys;
  const sign = ascending ? 1 : -1;
  return [...keys].sort((a, b) => {
    const [x, y] = [valueIn(DATA.cells[a], name), valueIn(DATA.cells[b], name)];
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}

function sortBy(column) {
  const again = sorted.name === column.name;
  sorted = { name: column.name, ascending: again ? !sorted.ascending : !column.best };
  drawTable();
  byId("cells").querySelector(`button[data-column="${column.name}"]`).focus();
}

export function drawTable() {
  const headings = COLUMNS.map((column) => {
    const direction = sorted.ascending ? "ascending" : "descending";
    const button = make("button", { type: "button", "data-column": column.name, title: column.title, onclick: () => sortBy(column) }, column.text);
    return make("th", { scope: "col", class: column.name === "label" ? "text" : null, "aria-sort": column.name === sorted.name ? direction : null }, button);
  });
  const rows = sortKeys(DATA.order, sorted).map(makeRow);
  byId("cells").replaceChildren(make("thead", {}, make("tr", {}, ...headings)), make("tbody", {}, ...rows));
}

function makeRow(key) {
  const cell = DATA.cells[key];
  const series = DATA.series[cell.series];
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = series.colour;
  const marks = [isRecommended(key) && "recommended", isFront(key) && "front"].filter(Boolean)
    .map((mark) => make("span", { class: `mark ${mark}`, title: mark === "front" ? "on the Pareto front" : mark }));
  const name = make("button", { type: "button", class: "link", onclick: () => openCell(key) }, `${series.sampler} + ${series.schedule}`);
  const cells = [make("th", { scope: "row", class: "text" }, swatch, name, ...marks), make("td", {}, String(cell.steps)),
    ...DATA.axes.map((label) => make("td", {}, cell.at[label] ?? "-"))];
  if (cell.status === "failed") {
    cells.push(make("td", { class: "reason", colspan: COLUMNS.length - cells.length }, `failed: ${cell.reason}`));
  } else {
    cells.push(make("td", {}, cell.text.nfe), make("td", {}, cell.text.plainSeconds), ...makeFigures(cell));
  }
  return make("tr", { "data-key": key, class: `${cell.status}${isRecommended(key) ? " best" : ""}` }, ...cells);
}

// Distances; clip is known where the others are not.
function makeFigures(cell) {
  const distances = DATA.metrics.filter((one) => one.name !== "clip");
  const others = DATA.metrics.filter((one) => one.name === "clip").map((one) => make("td", {}, cell.text[one.name]));
  if (cell.status !== "no_limit") return [...distances.map((one) => make("td", {}, cell.text[one.name])), ...others];
  if (!distances.length) return others;
  const note = "no limit to compare with";
  return [make("td", { class: "reason", colspan: distances.length, title: cell.reason }, note), ...others];
}
