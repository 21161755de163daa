// @ts-check
// Two plots of quality: against network evaluations, and against seconds.

import { DATA } from "./data.js";
import { byId, hideTip, isFront, isRecommended, make, makeSvg, marksOf, nameOf, showTip } from "./page.js";
import { openCell } from "./dialog.js";

const COSTS = [
  { id: "plot-nfe", name: "nfe" },
  { id: "plot-seconds", name: "seconds" },
];
const MARGIN = { top: 14, right: 14, bottom: 26, left: 46 };

let metric = DATA.metrics[0];
let focused = null; // the series that stands out

function makeScale(low, high, from, to, logarithmic) {
  const bend = logarithmic ? Math.log : (value) => value;
  const span = bend(high) - bend(low) || 1;
  return (value) => from + ((bend(value) - bend(low)) / span) * (to - from);
}

const TICK_ROOM = 22;  // pixels

function ticksBetween(low, high, logarithmic) {
  if (!logarithmic) {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step - first + 1e-9) + 1 }, (_, i) => (first + i) * step);
  }
  const powers = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) powers.push(10 ** k);
  const choices = [[1], [1, 3], [1, 2, 5], DATA.ticks].map((factors) =>
    powers.flatMap((power) => factors.map((m) => m * power)).filter((v) => v >= low && v <= high));
  return choices.find((ticks) => ticks.length >= 5) ?? choices.at(-1);
}

// The measured values themselves, but for those too near to the one before to be read.
function measuredTicks(values, x) {
  const ticks = [];
  for (const value of [...new Set(values)].sort((a, b) => a - b)) {
    if (!ticks.length || x(value) - x(ticks.at(-1)) >= TICK_ROOM) ticks.push(value);
  }
  return ticks;
}

const tickText = (value) => String(Number(value.toPrecision(3)));

export function drawPlots() {
  for (const cost of COSTS) drawPlot(byId(cost.id), cost.name);
  focusSeries(focused);
}

function pointsOf(cost) {
  return DATA.order
    .map((key) => ({ key, cell: DATA.cells[key] }))
    .filter(({ cell }) => cell.status !== "failed" && metric && metric.name in cell.values && cost in cell.values)
    .map(({ key, cell }) => ({
      key,
      cell,
      cost: cell.values[cost],
      quality: cell.values[metric.name],
      spread: cell.spread[metric.name],
    }));
}

// Where the quality axis begins and ends: all means, and the floor where it is not far beyond.
function qualityRange(points, floors) {
  const values = [...points.map((p) => p.quality), ...floors.map((f) => f.value)];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (metric.logarithmic) return [Math.max(low, 1e-6) / 1.25, high * 1.25];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - room, high + room];
  return metric.name === "ssim" ? [low, Math.min(high, 1 + room / 3)] : [low, high];
}

function floorsFor(points) {
  if (!points.length) return [];
  const floors = Object.entries(DATA.references)
    .map(([name, { floor, shared, title }]) => ({ name, shared, title, value: floor[metric.name] }))
    .filter((floor) => floor.value > 0 || (floor.value === 0 && !metric.logarithmic));
  const sign = metric.moreIsBetter ? 1 : -1;
  const shared = floors.filter((floor) => floor.shared).sort((a, b) => sign * (a.value - b.value));
  const title = shared.length > 1 ? "the least sure reference" : "the reference";
  return [...shared.slice(0, 1).map((floor) => ({ ...floor, title })), ...floors.filter((floor) => !floor.shared)];
}

function drawPlot(box, cost) {
  const points = pointsOf(cost);
  if (!points.length) {
    box.replaceChildren(make("p", { class: "quiet" }, "Nothing to draw: no cell has this figure."));
    return;
  }
  const width = Math.max(box.clientWidth, 260);
  const height = Math.round(Math.max(240, Math.min(360, width * 0.68)));
  const floors = floorsFor(points);
  const costs = points.map((p) => p.cost);
  const [low, high] = qualityRange(points, floors);
  const xRange = [Math.min(...costs) / 1.12, Math.max(...costs) * 1.12];
  const frame = {
    left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom,
  };
  const x = makeScale(...xRange, frame.left, frame.right, true);
  const y = makeScale(low, high, frame.bottom, frame.top, metric.logarithmic);
  const chart = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  chart.setAttribute("aria-label", `${metric.label} against ${cost}; the table below has the numbers`);
  const xTicks = cost === "nfe" ? measuredTicks(costs, x) : ticksBetween(...xRange, true);
  drawAxes(chart, frame, { x, y, xTicks, yTicks: ticksBetween(low, high, metric.logarithmic) });
  drawFloors(chart, frame, y, floors);
  if (cost === "seconds" && metric.name === "psnr") drawFronts(chart, frame, x, y, points);
  DATA.series.forEach((series, number) => {
    const own = points.filter((p) => p.cell.series === number).sort((a, b) => a.cell.steps - b.cell.steps);
    chart.append(makeSeries(series, number, own, { x, y, low, high }));
  });
  box.replaceChildren(chart);
}

function drawAxes(chart, frame, { x, y, xTicks, yTicks }) {
  for (const tick of yTicks) {
    chart.append(
      makeSvg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(tick), y2: y(tick) }),
      makeSvg("text", { class: "tick", x: frame.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tickText(tick)),
    );
  }
  for (const tick of xTicks) {
    chart.append(
      makeSvg("line", { class: "notch", x1: x(tick), x2: x(tick), y1: frame.bottom, y2: frame.bottom + 4 }),
      makeSvg("text", { class: "tick", x: x(tick), y: frame.bottom + 18, "text-anchor": "middle" }, tickText(tick)),
    );
  }
  chart.append(makeSvg("line", { class: "axis", x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom }));
}

// What lies beyond the floor of the reference that samplers share is shaded.
function drawFloors(chart, frame, y, floors) {
  for (const floor of floors) {
    const level = y(floor.value);
    const number = DATA.series.findIndex((series) => series.reference === floor.name);
    const own = !floor.shared;
    const group = makeSvg("g", { class: own ? "floor own" : "floor", "data-series": own ? number : null });
    if (own && number >= 0) group.style.setProperty("--colour", DATA.series[number].colour);
    if (!own) {
      const [top, bottom] = metric.moreIsBetter ? [frame.top, level] : [level, frame.bottom];
      group.append(makeSvg("rect", { x: frame.left, width: frame.right - frame.left, y: top, height: Math.max(0, bottom - top) }));
    }
    const below = metric.moreIsBetter ? frame.bottom - level > 20 : level - frame.top < 20;
    group.append(
      makeSvg("line", { x1: frame.left, x2: frame.right, y1: level, y2: level }),
      makeSvg("text", { x: frame.left + 6, y: level + (below ? 14 : -6) }, `floor of ${floor.title}`),
    );
    chart.append(group);
  }
}

function drawFronts(chart, frame, x, y, points) {
  for (const keys of DATA.fronts) {
    const front = keys.map((key) => points.find((p) => p.key === key)).filter(Boolean);
    if (!front.length) continue;
    const corners = front.map((p, i) => `${i ? `H${x(p.cost)}V` : `M${x(p.cost)} `}${y(p.quality)}`);
    chart.append(makeSvg("path", { class: "front", d: `${corners.join("")}H${frame.right}` }));
  }
}

function makeSeries(series, number, points, { x, y, low, high }) {
  const group = makeSvg("g", { class: "series", "data-series": number });
  group.style.setProperty("--colour", series.colour);
  const clamp = (value) => y(Math.max(low, Math.min(high, value)));
  for (const p of points.filter((point) => point.spread > 0)) {
    const ends = { y1: clamp(p.quality - p.spread), y2: clamp(p.quality + p.spread) };
    group.append(makeSvg("line", { class: "spread", x1: x(p.cost), x2: x(p.cost), ...ends }));
  }
  const path = points.map((p, i) => `${i ? "L" : "M"}${x(p.cost)} ${y(p.quality)}`).join("");
  group.append(makeSvg("path", { class: "line", d: path, "stroke-dasharray": series.dashes }));
  for (const p of points) group.append(makePoint(p, x(p.cost), y(p.quality), number));
  return group;
}

function makePoint(point, cx, cy, number) {
  const { key, cell } = point;
  const tip = [
    nameOf(cell),
    `${metric.label} ${cell.text[metric.name]}`,
    `${cell.text.nfe} evaluations, ${cell.text.seconds}`,
    ...marksOf(key),
  ];
  const group = makeSvg("g", {
    class: `point${isFront(key) ? " on-front" : ""}${isRecommended(key) ? " best" : ""}`,
    "data-cell": key,
    onclick: () => openCell(key),
    onpointerenter: (event) => { focusSeries(number); showTip(event.currentTarget, tip); },
    onpointerleave: () => { focusSeries(null); hideTip(); },
  });
  group.append(makeSvg("circle", { class: "hit", cx, cy, r: 10 }));
  if (isRecommended(key)) group.append(makeSvg("circle", { class: "halo", cx, cy, r: 9 }));
  group.append(makeSvg("circle", { class: "dot", cx, cy, r: isFront(key) ? 5 : 3.5 }));
  return group;
}

function focusSeries(number) {
  focused = number;
  /** @type {NodeListOf<HTMLElement>} */
  const elements = document.querySelectorAll("#plots [data-series], #legend [data-series]");
  for (const element of elements) {
    element.classList.toggle("dimmed", number !== null && element.dataset.series !== String(number));
    element.classList.toggle("focused", element.dataset.series === String(number));
  }
}

export function drawLegend() {
  const items = DATA.series.map((series, number) => {
    const swatch = makeSvg("svg", { width: 22, height: 10, "aria-hidden": "true" },
      makeSvg("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: series.colour, "stroke-width": 2.5, "stroke-dasharray": series.dashes }),
      makeSvg("circle", { cx: 11, cy: 5, r: 3.5, fill: series.colour }));
    const show = () => focusSeries(number);
    const button = make("button", {
      type: "button", "data-series": number,
      onpointerenter: show, onfocus: show,
      onpointerleave: () => focusSeries(null), onblur: () => focusSeries(null),
    }, swatch, series.label);
    return make("li", {}, button);
  });
  const key = make("li", { class: "key" }, make("span", { class: "mark front", "aria-hidden": "true" }), DATA.keys.front);
  const best = make("li", { class: "key" }, make("span", { class: "mark recommended", "aria-hidden": "true" }), DATA.keys.recommended);
  byId("legend").replaceChildren(...items, key, best);
}

export function drawMetricChoice() {
  const buttons = DATA.metrics.map((one) =>
    make("button", { type: "button", "aria-pressed": String(one === metric), "data-metric": one.name, onclick: () => chooseMetric(one) }, one.label));
  byId("metrics").replaceChildren(...buttons);
  byId("metrics").hidden = DATA.metrics.length < 2;
}

function chooseMetric(one) {
  metric = one;
  for (const button of byId("metrics").children) button.setAttribute("aria-pressed", button.dataset.metric === one.name);
  drawMetricNote();
  drawPlots();
}

export function drawMetricNote() {
  if (!metric) return;
  const unit = metric.unit ? ` in ${metric.unit}` : "";
  byId("metric-note").textContent = `${metric.label}${unit}: ${metric.meaning}. Bars are 95 % confidence intervals.`;
}
