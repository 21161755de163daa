// @ts-check
// What was measured, as diffgen/bench/show/report.py wrote it into the page.

/** @type {any} */
export const DATA = JSON.parse(document.getElementById("data")?.textContent ?? "{}");
