// @ts-check
// The contact sheet: samplers down, steps across, the reference at the end of each row.

import { DATA } from "./data.js";
import { byId, isFront, isRecommended, make, makePicture, marksOf, meanText, nameOf, neighbour, verdictOf } from "./page.js";
import { openCell } from "./dialog.js";

const LABEL_WIDTH = 170;

export function drawSheet() {
  const heads = DATA.steps.map((steps) => make("th", { scope: "col" }, String(steps)));
  const corner = make("td", { class: "corner" }, "steps");
  const last = make("th", { scope: "col", class: "reference" }, "converged");
  const rows = DATA.series.map(makeSheetRow);
  byId("sheet").replaceChildren(
    make("thead", {}, make("tr", {}, corner, ...heads, last)), make("tbody", {}, ...rows));
  const first = byId("sheet").querySelector("button.tile");
  if (first) first.tabIndex = 0;
  byId("sheet").addEventListener("keydown", moveInSheet);
  sizeTiles();
}

function makeSheetRow(series, number) {
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = series.colour;
  const knee = series.knee ? make("span", { class: "quiet" }, `knee at ${series.knee}`) : null;
  const label = make("th", { scope: "row" },
    make("span", { class: "name" }, swatch, series.sampler), make("span", { class: "quiet" }, series.schedule),
    series.at ? make("span", { class: "quiet" }, series.at) : null, knee);
  const tiles = DATA.steps.map((steps) => {
    const key = series.cells[steps];
    return make("td", {}, key ? makeTile(key) : null);
  });
  return make("tr", { "data-series": number }, label, ...tiles, make("td", { class: "reference" }, makeReferenceTile(series)));
}

function makeTile(key) {
  const cell = DATA.cells[key];
  const face = cell.picture ? makePicture(cell.picture, "") : make("span", { class: "blank" }, cell.status === "failed" ? "failed" : "no picture");
  const label = [nameOf(cell), verdictOf(cell), ...marksOf(key)].join(", ");
  const marks = `${isFront(key) ? " front" : ""}${isRecommended(key) ? " best" : ""} ${cell.status}`;
  return make("button", {
    type: "button", class: `tile${marks}`, "data-key": key, tabindex: -1, "aria-label": label, title: cell.reason || null,
    onclick: () => openCell(key), onfocus: (event) => rove(event.currentTarget),
  }, face, make("span", { class: "verdict" }, tileText(cell)));
}

function tileText(cell) {
  const [first] = DATA.metrics;
  if (cell.status !== "ok") return cell.status === "failed" ? "" : "no limit";
  return first && first.name in cell.values ? meanText(cell, first) : "";
}

function makeReferenceTile(series) {
  const measured = Object.values(series.cells).some((key) => DATA.cells[key].reference !== null);
  const reference = measured ? DATA.references[series.reference] : null;
  if (!reference || !reference.picture) return make("span", { class: "blank" }, "none");
  return makePicture(reference.picture, `converged: ${reference.label}`);
}

// Only one tile is a tab stop; the arrow keys move between them.
function rove(tile) {
  for (const other of byId("sheet").querySelectorAll("button.tile[tabindex='0']")) other.tabIndex = -1;
  tile.tabIndex = 0;
}

function moveInSheet(event) {
  const tile = event.target.closest("button.tile");
  const next = tile && neighbour(tile.dataset.key, event.key);
  if (!tile || !/^(Arrow.*|Home|End)$/.test(event.key)) return;
  event.preventDefault();
  if (next) tileOf(next).focus();
}

const tileOf = (key) => byId("sheet").querySelector(`button.tile[data-key="${CSS.escape(key)}"]`);

// Where the dialog leaves a reader: at the cell that was seen last.
export function returnTo(key) {
  const tile = tileOf(key);
  if (!tile) return;
  rove(tile);
  if (byId("sheet").contains(document.activeElement)) tile.focus();
}

// Tiles fill the width; small pictures are enlarged by halves of their size, so that pixels stay even.
export function sizeTiles() {
  const table = byId("sheet");
  const room = (table.parentElement.clientWidth - LABEL_WIDTH) / (DATA.steps.length + 1) - 10;
  const image = table.querySelector("img");
  const natural = image?.naturalWidth || 64;
  let width = Math.max(64, Math.min(room, 176));
  if (natural <= 256) width = Math.max(natural >= 64 ? 64 : natural, Math.floor((2 * width) / natural) * (natural / 2));
  table.style.setProperty("--tile", `${width}px`);
  if (image && !image.complete) image.addEventListener("load", sizeTiles, { once: true });
}
