// The site's own monitoring: drift, performance over time with intervals, rates by group of patients.

import { badge, clock, counted, drawn, element, percent, say } from "./dom.js";
import { monitoring } from "./service.js";

const NAMES = {
  sensitivity: "Sensitivity", specificity: "Specificity", auroc: "AUROC", "calibration-error": "Calibration error",
  "positive-share": "Share answered positive", "positive_share": "Share answered positive", age_band: "Age", sex: "Sex", inputs: "Images as they come", embeddings: "What the network sees in them",
  predictions: "Its answers",
};
const LEVELS = [["good", "as in the reference"], ["warn", "some drift"], ["bad", "much drift"]];
const STANDINGS = { held: ["good", "as released"], open: ["dull", "not shown yet"], broken: ["bad", "worse than released"] };
const word = (name) => NAMES[name] ?? name.replaceAll(/[_-]/g, " ");

export async function showMonitoring(box, status) {
  try {
    const found = await monitoring();
    if (found.state === "waiting") { say(status, "The first look has not been taken yet."); return; }
    say(status, `Looked at ${clock(found.refreshed_at)}${found.minimum_cell ? `; nothing is shown of fewer than ${found.minimum_cell} patients` : ""}.`);
    box.replaceChildren(...drift(found.drift), ...recent(found.recent), ...overTime(found.months), ...groups(found));
  } catch (error) {
    say(status, `Monitoring cannot be shown here. ${error.message}`);
  }
}

function drift(found) {
  const heading = element("h3", {}, "Drift against the release's reference");
  if (found === null || found.reference_patients === null) {
    return [heading, element("p", { className: "small" }, "There is no reference to hold new images against: this site has too few held-out cases for the model that answers.")];
  }
  const rows = found.kinds.map((one) => {
    const [kind, words] = one.level === null ? ["dull", "too few images"] : LEVELS[one.level];
    const worst = one.figures.filter((figure) => figure.level > 0).map((figure) => figure.name).slice(0, 4).join(", ");
    return row(word(one.kind), ["Verdict", badge(kind, words)], ["Images", String(one.images)], ["What moved", worst || "–"]);
  });
  return [heading, table("Drift by kind", ["Kind", "Verdict", "Images", "What moved"], rows)];
}

function recent(found) {
  if (found === null) return [];
  const rows = found.figures.map((one) => {
    const [kind, words] = STANDINGS[one.standing] ?? ["dull", "–"];
    return row(word(one.name), ["Now", interval(one.interval, written(one.name))], ["Released with", one.promised === null ? "–" : written(one.name)(one.promised)], ["Standing", one.standing ? badge(kind, words) : "–"]);
  });
  return [element("h3", {}, `Model version ${found.version} on confirmed cases here`), table("Figures now", ["Figure", "Now (99 % interval)", "Released with", "Standing"], rows)];
}

function groups(found) {
  if (found.groups.length === 0) return [];
  const rows = found.groups.map((one) => row(`${word(one.axis)}: ${one.group}`,
    ["Sensitivity", interval(one.sensitivity)], ["Specificity", interval(one.specificity)], ["Answered positive", interval(one.positive_share)]));
  const gaps = found.gaps.map((one) => element("li", {}, `${word(one.rate)} by ${word(one.axis).toLowerCase()}: the groups lie ${interval(one.distance)} apart.`));
  return [element("h3", {}, "By group of patients"), table("Rates by group", ["Group", "Sensitivity", "Specificity", "Answered positive"], rows), element("ul", { className: "small" }, ...gaps)];
}

// An area and a distance are no shares, and are not written as such.
const written = (name) => (["auroc", "calibration-error"].includes(name) ? (value) => value.toFixed(3) : percent);

const interval = (one, as = percent) => (one === null || one === undefined ? "–" : `${as(one.estimate)} (${as(one.low)} to ${as(one.high)})`);

const row = (name, ...cells) => element("tr", {}, element("th", { scope: "row" }, name),
  ...cells.map(([label, value]) => element("td", { dataset: { label } }, value)));

const table = (caption, heads, rows) => element("table", { className: "stack" }, element("caption", { className: "quiet" }, caption),
  element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))), element("tbody", {}, ...rows));

const SIZE = { width: 640, height: 220, left: 46, right: 624, top: 12, bottom: 186 };

function overTime(months) {
  const names = ["sensitivity", "specificity"];
  const axis = [...new Set(months.map((one) => one.month))].filter(Boolean).sort();
  const across = (month) => SIZE.left + 14 + (axis.length < 2 ? 0.5 : axis.indexOf(month) / (axis.length - 1)) * (SIZE.right - SIZE.left - 28);
  const up = (value) => SIZE.bottom - value * (SIZE.bottom - SIZE.top);
  const lines = names.map((name) => months.slice().sort((a, b) => (a.month < b.month ? -1 : 1)).flatMap((one) => {
    const figure = one.figures.find((candidate) => candidate.name === name);
    return figure?.interval && one.month ? [{ month: one.month, version: one.version, ...figure.interval }] : [];
  }));
  if (lines.every((points) => points.length === 0)) return [];
  const words = lines.map((points, at) => `${word(names[at])}: ${points.map((p) => `${p.month} ${percent(p.estimate)}`).join(", ")}`).join(". ");
  const chart = drawn("svg", { class: "chart", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": `Performance by month. ${words}` });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(drawn("line", { class: "grid", x1: SIZE.left, x2: SIZE.right, y1: up(value), y2: up(value) }),
      drawn("text", { class: "axis", x: SIZE.left - 6, y: up(value) + 4, "text-anchor": "end" }, `${value * 100} %`));
  }
  for (const month of axis) chart.append(drawn("text", { class: "axis", x: across(month), y: SIZE.bottom + 20, "text-anchor": "middle" }, month));
  lines.forEach((points, at) => chart.append(...series(points, at, across, up)));
  const legend = element("p", { className: "chart-legend" }, ...names.map((name, at) => element("span", {}, key(at), ` ${word(name)}`)));
  const scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Performance by month" }, chart);
  return [element("h3", {}, `Over ${counted(axis.length, "month")}, with 99 % intervals`), scroll, legend];
}

function series(points, at, across, up) {
  const shift = (at - 0.5) * 8;
  const made = [drawn("polyline", { class: `line s${at}`, points: points.map((p) => `${across(p.month) + shift},${up(p.estimate)}`).join(" ") })];
  for (const p of points) {
    const x = across(p.month) + shift;
    made.push(drawn("line", { class: `whisker s${at}`, x1: x, x2: x, y1: up(p.low), y2: up(p.high) }),
      drawn("circle", { class: `point s${at}`, cx: x, cy: up(p.estimate), r: 4 }));
  }
  return made;
}

const key = (at) => drawn("svg", { viewBox: "0 0 26 8", width: 26, height: 8, "aria-hidden": "true" }, drawn("line", { class: `line s${at}`, x1: 0, x2: 26, y1: 4, y2: 4 }));
