// @ts-check
// Puts the page together.

import { DATA } from "./data.js";
import { byId, make, makePairs, makePicture, meanText } from "./page.js";
import { openCell, setUpDialog } from "./dialog.js";
import { drawLegend, drawMetricChoice, drawMetricNote, drawPlots } from "./plot.js";
import { drawSheet, returnTo, sizeTiles } from "./sheet.js";
import { drawTable } from "./table.js";

function drawHeader() {
  byId("model").textContent = DATA.model;
  byId("prompts").replaceChildren(...DATA.prompts.map((prompt) => make("li", {}, prompt || "(no prompt)")));
  const cells = Object.keys(DATA.cells).length;
  const facts = [`${cells} cells`, ...DATA.machine.slice(0, 1).map(([, text]) => text), new Date(DATA.created).toLocaleString()];
  byId("facts").textContent = facts.join("  \u00b7  ");
}

function drawAnswer() {
  if (!DATA.answer) return;
  byId("answer").hidden = false;
  const [head, ...rest] = DATA.answer.split(": ");
  byId("sentence").replaceChildren(...(rest.length ? [make("strong", {}, head), rest.join(": ")] : [head]));
  byId("command").textContent = DATA.command;
  byId("others").replaceChildren(...DATA.others.flatMap(({ sentence, command }) => [
    make("p", {}, sentence), make("pre", { "aria-label": "The command that draws it" }, command)]));
  const cell = DATA.cells[DATA.recommended];
  if (!cell) return;
  byId("look").addEventListener("click", () => openCell(DATA.recommended));
  const figures = [
    ["evaluations", cell.text.nfe], ["a picture", cell.text.seconds],
    ...DATA.metrics.slice(0, 2).filter((one) => one.name in cell.values).map((one) => [one.label, meanText(cell, one)]),
  ];
  byId("key-figures").replaceChildren(...figures.map(([name, text]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, text))));
  const reference = DATA.references[cell.reference];
  const pictures = [[cell.picture, "recommended"], [reference?.picture, "converged"]].filter(([source]) => source);
  byId("answer-pictures").replaceChildren(...pictures.map(([source, name]) =>
    make("figure", {}, makePicture(source, name), make("figcaption", {}, name))));
}

function drawSheetNote() {
  const { prompt, seed } = DATA.shown;
  const shown = [prompt && `\u201c${prompt}\u201d`, seed && `seed ${seed}`].filter(Boolean).join(", ");
  byId("sheet-note").replaceChildren(
    `Shown: ${shown || "the first picture"}; the figures are means over all pictures. Bold: on the Pareto front. `,
    make("br"), "Click a picture, or move with the arrow keys and press Enter, to see it beside its reference.");
}

function drawMethod() {
  byId("rule").textContent = DATA.rule;
  byId("solutions").hidden = !DATA.solving.length;
  byId("solving").textContent = DATA.solving.join(", ");
  byId("notes").replaceChildren(...DATA.notes.map((note) => make("li", {}, note)));
  const links = DATA.files.flatMap((file) => [" ", make("a", { href: encodeURIComponent(file) }, file)]);
  byId("files").replaceChildren("Beside this page:", ...links);
  makePairs(byId("machine"), DATA.machine);
  makePairs(byId("settings"), DATA.settings);
  makePairs(byId("references"), Object.entries(DATA.references).flatMap(([name, reference]) => [
    [name ? `Reference of ${reference.title}` : "Reference", `${reference.label}, checked with ${reference.checkedWith}`],
    ["Floor", reference.floorText],
  ]));
}

drawHeader();
drawAnswer();
drawMetricChoice();
drawMetricNote();
drawLegend();
drawPlots();
drawSheetNote();
drawSheet();
drawTable();
drawMethod();
setUpDialog(returnTo);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  drawPlots();
  sizeTiles();
});
