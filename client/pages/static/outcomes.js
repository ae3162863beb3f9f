// The audit view: what the model had right, missed, or gave a false alarm on; and how it goes on.

import { badge, byId, counted, element, drawn, named, percent, say, thumbnail } from "./dom.js";
import { showHistory } from "./history.js";
import { showMonitoring } from "./monitoring.js";
import { outcomes } from "./service.js";
import { refresh, watchStatus } from "./status.js";

const WORDS = { "missed": ["bad", "missed cancer"], "false-alarm": ["warn", "false alarm"], "correct": ["good", "correct"] };
const PAGE = 24;
let offset = 0;

async function load(more = false) {
  const status = byId("counts-status");
  if (!more) offset = 0;
  try {
    const found = await outcomes({ version: byId("version").value, kind: byId("kind").value, offset, limit: PAGE });
    if (!more) { tiles(found); versions(found); }
    const cards = found.rows.map(card);
    if (more) byId("cases").append(...cards);
    else byId("cases").replaceChildren(...cards);
    offset = found.next_offset;
    byId("more").hidden = offset === null;
    byId("cases-status").textContent = found.rows_in_all ? `${counted(found.rows_in_all, "row")}, the newest first.` : "Nothing of this kind.";
    say(status, "");
  } catch (error) {
    say(status, error.absent ? `Outcomes cannot be shown here. ${error.message}` : error.message, "failed");
  }
}

function tiles(found) {
  const { total } = found;
  const none = total.found + total.cleared + total.missed + total.false_alarms === 0;
  byId("tiles").replaceChildren(
    tile("correct", "Correct", total.found + total.cleared, `${total.found} found, ${total.cleared} cleared`),
    tile("missed", "Missed cancers", total.missed, "answered negative, confirmed positive"),
    tile("false-alarm", "False alarms", total.false_alarms, "answered positive, confirmed negative"),
    rate("Sensitivity", total.sensitivity), rate("Specificity", total.specificity));
  if (none) byId("tiles").append(element("p", { className: "small" }, "No confirmed case had an answer before it was confirmed."));
}

const tile = (kind, heading, figure, words) => element("div", { className: `tile ${kind}` },
  element("p", {}, heading), element("p", { className: "figure" }, String(figure)), element("p", { className: "small" }, words));

function rate(heading, interval) {
  if (interval === null) return tile("", heading, "–", "no such case yet");
  const range = `95 % interval ${percent(interval.low)} to ${percent(interval.high)}`;
  const place = (value) => 2 + value * 96;
  const bar = drawn("svg", { class: "interval", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    drawn("line", { class: "whole", x1: 2, x2: 98, y1: 5, y2: 5 }),
    drawn("line", { class: "range", x1: place(interval.low), x2: place(interval.high), y1: 5, y2: 5 }),
    drawn("rect", { class: "value", x: place(interval.value) - 0.6, y: 0, width: 1.2, height: 10 }));
  const made = tile("", heading, percent(interval.value), range);
  made.append(bar);
  return made;
}

function versions(found) {
  const select = byId("version");
  if (select.options.length === 1) {
    select.append(...found.by_version.map((one) => element("option", { value: one.model_version }, `Version ${one.model_version}`)));
  }
  if (found.by_version.length < 2) { byId("by-version").replaceChildren(); return; }
  const heads = ["Version", "Correct", "Missed", "False alarms", "Sensitivity", "Specificity"];
  const head = element("tr", {}, ...heads.map((name, at) => element("th", { scope: "col", className: at ? "number" : "" }, name)));
  const rows = found.by_version.map((one) => element("tr", {},
    element("th", { scope: "row" }, `Version ${one.model_version}`),
    ...[["Correct", one.found + one.cleared], ["Missed", one.missed], ["False alarms", one.false_alarms],
      ["Sensitivity", short(one.sensitivity)], ["Specificity", short(one.specificity)]]
      .map(([label, value]) => element("td", { className: "number", dataset: { label } }, String(value)))));
  const table = element("table", { className: "stack" }, element("caption", {}, "By model version"), element("thead", {}, head), element("tbody", {}, ...rows));
  byId("by-version").replaceChildren(table);
}

const short = (interval) => (interval === null ? "–" : `${percent(interval.value)} (${percent(interval.low)}–${percent(interval.high)})`);

function card(row) {
  const [kind, words] = WORDS[row.kind] ?? ["dull", row.kind];
  const images = document.body.dataset.images === "yes";
  const open = element("button", { type: "button", className: "button quiet-button slim" }, "History");
  open.addEventListener("click", () => history(row.case_id));
  const lines = element("div", { className: "lines" }, badge(kind, words), element("strong", {}, named(row.label)),
    element("span", { className: "small" }, `Version ${row.model_version} said ${row.verdict}, ${percent(row.positive_probability)} against ${percent(row.threshold)}${row.referred ? "; referred" : ""}`), open);
  const picture = images ? thumbnail(row.case_id, "") : "";
  return element("li", { className: images ? "outcome" : "outcome plain-card" }, picture, lines);
}

async function history(caseId) {
  byId("history").hidden = false;
  byId("history-heading").textContent = `History of case ${caseId.slice(0, 8)}`;
  await showHistory(byId("history-body"), caseId);
  byId("history").scrollIntoView({ block: "nearest" });
  byId("history-heading").focus();
}

byId("version").addEventListener("change", () => load());
byId("kind").addEventListener("change", () => load());
byId("more").addEventListener("click", () => load(true));
watchStatus();
refresh();
load();
showMonitoring(byId("monitoring"), byId("monitoring-status"));
