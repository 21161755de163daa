// @ts-check
// One cell at full size: its picture, the reference and their difference, and all its numbers.

import { DATA } from "./data.js";
import { byId, hideTip, make, makePairs, makePicture, markSmall, marksOf, nameOf, neighbour } from "./page.js";

const MAX_FACTOR = 64;
let opened = null;

export function openCell(key) {
  hideTip();
  opened = key;
  showCell(DATA.cells[key], key);
  if (!byId("dialog").open) {
    byId("dialog").showModal();
    byId("dialog").focus();
  }
  byId("dialog").scrollTop = 0;
}

function showCell(cell, key) {
  byId("dialog-title").textContent = nameOf(cell);
  byId("dialog-marks").replaceChildren(...marksOf(key).map((mark) => make("span", { class: "badge" }, mark)));
  byId("dialog-reason").textContent = cell.reason;
  byId("dialog-reason").hidden = !cell.reason;
  byId("dialog-reason").className = cell.status;
  const each = cell.pictures ? [["PSNR of each picture", cell.pictures]] : [];
  makePairs(byId("dialog-numbers"), [...cell.numbers, ...each]);
  const reference = DATA.references[cell.reference];
  const floor = reference ? [["Compared with", reference.label], ["Floor", reference.floorText]] : [];
  makePairs(byId("dialog-settings"), [...cell.settings, ...floor]);
  for (const button of byId("dialog").querySelectorAll("[data-move]")) button.disabled = !neighbour(key, button.dataset.move);
  showPictures(cell, reference);
  showMore(cell);
}

// The pictures of further seeds and prompts, which are files beside the page: without them, nothing.
function showMore(cell) {
  const figures = cell.more.map(({ file, converged, label }) => {
    const figure = make("figure", {}, make("span", { class: "pair" }, ...[file, converged].filter(Boolean).map((path) => {
      const image = make("img", { src: path, alt: "", loading: "lazy", onerror: () => figure.remove() });
      return make("a", { href: path, title: path === file ? "this cell" : "converged" }, image);
    })), make("figcaption", {}, label));
    return figure;
  });
  byId("dialog-more").replaceChildren(...figures);
  byId("dialog-more").hidden = !figures.length;
}

function showPictures(cell, reference) {
  const figures = [];
  if (cell.picture) figures.push(makeFigure("picture", makePicture(cell.picture, nameOf(cell)), "this cell", cell.shownPsnr));
  if (reference?.picture) {
    figures.push(makeFigure("reference", makePicture(reference.picture, `converged: ${reference.label}`), "converged", reference.label));
  }
  if (cell.picture && reference?.picture) {
    figures.push(makeFigure("difference", make("canvas", { role: "img", "aria-label": "difference" }), "difference", ""));
  }
  byId("dialog-pictures").replaceChildren(...figures);
  byId("dialog-pictures").hidden = !figures.length;
  byId("dialog-zoom").hidden = !figures.length;
  if (figures.length) offerZoom(figures[0].firstElementChild);
  if (figures.length === 3) drawDifference(...figures);
}

function makeFigure(id, content, name, text) {
  const caption = make("figcaption", {}, make("strong", {}, name), " ", make("span", { class: "quiet" }, text));
  return make("figure", { id: `shown-${id}` }, content, caption);
}

// Pictures larger than their column can be seen pixel for pixel.
async function offerZoom(picture) {
  await picture.decode();
  byId("dialog-zoom").hidden = picture.naturalWidth <= 256;
}

function toggleZoom() {
  const actual = byId("dialog-pictures").classList.toggle("actual");
  byId("dialog-zoom").setAttribute("aria-pressed", String(actual));
}

async function drawDifference(...figures) {
  const [picture, reference, canvas] = figures.map((figure) => figure.firstElementChild);
  const caption = figures[2].querySelector("figcaption span");
  await Promise.all([picture.decode(), reference.decode()]);
  const { naturalWidth: width, naturalHeight: height } = picture;
  if (reference.naturalWidth !== width || reference.naturalHeight !== height) {
    caption.textContent = "the two have different sizes";
    return;
  }
  Object.assign(canvas, { width, height });
  markSmall(canvas, width);
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const [a, b] = [picture, reference].map((image) => readPixels(brush, image, width, height));
  const { result, factor, largest } = amplifiedDifference(a, b);
  brush.putImageData(new ImageData(result, width, height), 0, 0);
  canvas.dataset.factor = factor;
  caption.textContent = largest
    ? `\u00d7${factor}; the largest is ${largest} of 255` : "none: the two are equal to the last bit";
}

function readPixels(brush, image, width, height) {
  brush.clearRect(0, 0, width, height);
  brush.drawImage(image, 0, 0);
  return brush.getImageData(0, 0, width, height).data;
}

// |a - b| of every channel, times the largest power of two that keeps 99 % of the pixels in range.
function amplifiedDifference(a, b) {
  const peaks = new Uint32Array(256);
  const result = new Uint8ClampedArray(a.length);
  for (let i = 0; i < a.length; i += 4) {
    let peak = 0;
    for (let c = i; c < i + 3; c++) peak = Math.max(peak, Math.abs(a[c] - b[c]));
    peaks[peak] += 1;
  }
  let [level, seen] = [0, 0];
  while (level < 255 && (seen += peaks[level]) < 0.99 * (a.length / 4)) level++;
  const largest = peaks.findLastIndex((count) => count > 0);
  const factor = Math.min(MAX_FACTOR, 2 ** Math.floor(Math.log2(255 / Math.max(1, level))));
  for (let i = 0; i < a.length; i++) result[i] = i % 4 === 3 ? 255 : factor * Math.abs(a[i] - b[i]);
  return { result, factor, largest };
}

function moveDialog(arrow) {
  const next = opened && neighbour(opened, arrow);
  if (next) openCell(next);
}

// `leave` is told which cell was shown last.
export function setUpDialog(leave) {
  const dialog = byId("dialog");
  byId("dialog-close").addEventListener("click", () => dialog.close());
  byId("dialog-zoom").addEventListener("click", toggleZoom);
  for (const button of dialog.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => moveDialog(button.dataset.move));
  }
  dialog.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    moveDialog(event.key);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (opened) leave(opened);
    opened = null;
  });
}
