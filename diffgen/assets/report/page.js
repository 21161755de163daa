// @ts-check
// Making elements, and what several parts of the page need. Texts are set as text, never as markup.

import { DATA } from "./data.js";

const SVG = "http://www.w3.org/2000/svg";
/** @type {(id: string) => any} */
export const byId = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function makeSvg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makePairs(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

// A picture that shows its pixels as squares where it is enlarged a lot.
export function makePicture(source, text) {
  const image = make("img", { src: source, alt: text, decoding: "async" });
  image.addEventListener("load", () => markSmall(image, image.naturalWidth));
  return image;
}

export function markSmall(image, width) {
  image.classList.toggle("small", width <= 256);
  image.style.setProperty("--natural", `${width}px`);
}

export const isFront = (key) => DATA.fronts.some((front) => front.includes(key));
export const isRecommended = (key) => key === DATA.recommended || DATA.others.some((other) => other.cell === key);
const isKnee = (cell) => DATA.series[cell.series].knee === cell.steps;

export function nameOf(cell) {
  const at = Object.entries(cell.at).map(([label, value]) => `, ${label} ${value}`).join("");
  return `${cell.sampler} + ${cell.schedule}, ${cell.steps} step${cell.steps === 1 ? "" : "s"}${at}`;
}

export function verdictOf(cell) {
  if (cell.status === "failed") return "failed";
  if (cell.status === "no_limit") return "no limit";
  return cell.values.psnr === undefined ? "not measured" : cell.text.psnr;
}

// A mean without its interval.
export const meanText = (cell, one) => cell.text[one.name].replace(/ \u00b1 [\d.]+/, "");

// The marks of a cell as words: for labels, and for badges.
export function marksOf(key) {
  const cell = DATA.cells[key];
  return [
    isRecommended(key) && "recommended",
    isFront(key) && "on the Pareto front",
    isKnee(cell) && "knee of its sampler",
    cell.status === "failed" && "failed",
    cell.status === "no_limit" && "no limit to compare with",
  ].filter(Boolean);
}

// The cell an arrow key leads to: along a row, or the one with the nearest step count above or below.
export function neighbour(key, arrow) {
  const cell = DATA.cells[key];
  const row = Object.entries(DATA.series[cell.series].cells).map(([steps, other]) => [Number(steps), other]).sort((a, b) => a[0] - b[0]);
  const at = row.findIndex(([, other]) => other === key);
  if (arrow === "ArrowLeft" || arrow === "ArrowRight") return row[at + (arrow === "ArrowRight" ? 1 : -1)]?.[1];
  if (arrow === "Home" || arrow === "End") return row[arrow === "Home" ? 0 : row.length - 1][1];
  const series = DATA.series[cell.series + { ArrowUp: -1, ArrowDown: 1 }[arrow]];
  if (!series) return undefined;
  const near = Object.keys(series.cells).map(Number).sort((a, b) => Math.abs(a - cell.steps) - Math.abs(b - cell.steps));
  return series.cells[near[0]];
}

export function showTip(target, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, i) => make(i ? "span" : "strong", {}, line)));
  tip.hidden = false;
  const at = target.getBoundingClientRect();
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  const above = at.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

export function hideTip() {
  byId("tip").hidden = true;
}
