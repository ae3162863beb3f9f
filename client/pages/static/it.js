// Hospital IT: the page's parts are drawn by the service and fetched anew; buttons ask before they act.

import { badge, byId, clock, element, percent } from "./dom.js";
import { releases, send } from "./service.js";
import { refresh, watchStatus } from "./status.js";

const SECONDS = 30;
const LONGEST_ANSWER_SECONDS = 20;
const decides = document.body.dataset.decides === "yes";
const STATES = {
  serving: ["good", "answers"], previous: ["dull", "the one before"], held: ["warn", "held: waits for you"],
  refused: ["bad", "refused"], "rolled-back": ["bad", "rolled back"], replaced: ["dull", "replaced"],
};
const WHY = {
  first: "the first release here", rollback: "it has answered here before",
  "self-test": "the self-test failed", "classes-changed": "it has other classes", "too-few-cases": "too few held-out cases here to tell",
  "not-worse": "not worse on the held-out cases here", worse: "worse on the held-out cases here", unclear: "the held-out cases here cannot tell",
};

// Nothing is swapped under somebody's hands: an open form stays, and a field in which somebody types.
const TYPED = "input, select, textarea";
const focused = () => (byId("live").contains(document.activeElement) ? document.activeElement : null);
const busy = () => focused()?.matches(TYPED) || byId("live").querySelector("details[open]") !== null;
let readAt = Date.now();
let waiting = false;
let reads = 0;

async function reload(force = false) {
  if (!force && document.hidden) return;
  const status = byId("live-status");
  if (leftAlone(force)) return;
  reads += 1;
  const turn = reads;
  try {
    const response = await fetch(window.location.pathname, { cache: "no-store", signal: AbortSignal.timeout(LONGEST_ANSWER_SECONDS * 1000) });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const live = page.getElementById("live");
    if (live === null) throw new Error("it failed, or this session has ended");
    if (turn !== reads || leftAlone(force)) return;
    const held = focused();
    byId("live").replaceChildren(...live.childNodes);
    readAt = Date.now();
    status.textContent = `Read at ${clock(readAt)}.`;
    watchForms();
    focusAgain(held);
    await showReleases();
    focusAgain(held);
  } catch {
    if (turn === reads) status.textContent = `Not up to date: it is as it was at ${clock(readAt)}. It is read again in half a minute; if this stays, load the page again.`;
  }
}

function leftAlone(force) {
  waiting = !force && busy();
  if (waiting) byId("live-status").textContent = `As it was at ${clock(readAt)}: the page waits until its open forms are closed.`;
  return waiting;
}

const catchUp = () => { if (waiting) reload(); };

// What had the focus is found again by what it is called.
function focusAgain(held) {
  if (held === null || document.activeElement !== document.body) return;
  const name = (part) => part.getAttribute("href") ?? part.textContent;
  [...byId("live").querySelectorAll(held.localName)].find((part) => name(part) === name(held))?.focus({ preventScroll: true });
}

function watchForms() {
  for (const form of byId("live").querySelectorAll("form[data-action]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      act(form.dataset.action, Object.fromEntries(new FormData(form)), form);
    });
  }
}

async function act(path, document_, near) {
  try {
    await send(path, document_);
    await reload(true);
  } catch (error) {
    near.querySelector(".status")?.remove();
    near.append(element("p", { className: "status failed", role: "alert" }, error.message));
  }
  refresh();
}

async function showReleases() {
  const box = byId("releases");
  try {
    const found = await releases();
    box.replaceChildren(...standing(found), element("ul", { className: "releases" }, ...found.rows.slice(0, 8).map((row) => line(row, found))));
  } catch (error) {
    box.replaceChildren(element("p", { className: "small" }, `Decisions about releases cannot be shown. ${error.message}`));
  }
}

function standing(found) {
  const notes = [];
  if (found.judging) notes.push(element("p", { className: "note go" }, `Version ${found.judging} is being loaded and scored beside the one that answers.`));
  if (found.refuses) notes.push(element("p", { className: "note bad" }, "The coordinator has not vouched for the model for too long: no answers are given, as policy.toml says."));
  else if (found.stale) notes.push(element("p", { className: "note warn" }, "The coordinator has not vouched for this model for longer than policy.toml likes."));
  if (found.pinned) notes.push(element("p", { className: "note warn" }, "Somebody went back to this version: nothing newer answers until it is accepted here."));
  return notes;
}

function line(row, found) {
  const [kind, words] = STATES[row.state] ?? ["dull", row.state];
  const item = element("li", {},
    element("p", {}, element("strong", {}, `Version ${row.version} `), badge(kind, words)),
    element("p", { className: "small" }, `${clock(row.at)}, by ${row.by === "policy" ? "this site's policy" : row.by}${row.reason in WHY ? `: ${WHY[row.reason]}` : ""}`));
  if (row.figures) item.append(figures(row.figures));
  if (decides) item.append(...buttons(row, found));
  return item;
}

function figures(of) {
  const change = (value, before, low, high) => `${value.toFixed(3)} against ${before.toFixed(3)} (difference ${signed(low)} to ${signed(high)})`;
  return element("p", {}, `On ${of.patients} held-out patients here, beside version ${of.beside}: AUROC ${change(of.auroc, of.auroc_beside, of.auroc_lower, of.auroc_upper)}; `
    + `sensitivity ${percent(of.sensitivity)} against ${percent(of.sensitivity_beside)}.`);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

function buttons(row, found) {
  const made = [];
  if (["held", "refused", "rolled-back"].includes(row.state)) {
    made.push(choice("", `Accept version ${row.version}…`, "It is loaded and self-tested, and answers from then on.", "Accept it", `/releases/${row.version}/accept`));
  }
  if (row.state === "held") {
    made.push(choice("danger", `Refuse version ${row.version}…`, "It never answers here, unless somebody accepts it later.", "Refuse it", `/releases/${row.version}/refuse`));
  }
  if (row.state === "serving" && found.previous !== null) {
    made.push(choice("danger", `Go back to version ${found.previous}…`,
      `Version ${found.previous} answers at once, and goes on until a newer one is accepted here.`, `Go back to version ${found.previous}`, "/releases/rollback"));
  }
  return made;
}

function choice(kind, label, words, button, path) {
  const style = kind === "danger" ? "button danger" : "button";
  const form = element("form", {}, element("p", {}, words), element("button", { className: style }, button));
  form.addEventListener("submit", (event) => { event.preventDefault(); act(path, {}, form); });
  return element("details", { className: kind || "calm" }, element("summary", { className: `${style} slim` }, label), form);
}

watchForms();
watchStatus();
refresh();
showReleases();
byId("live").addEventListener("focusout", catchUp);
byId("live").addEventListener("toggle", catchUp, true); // it does not bubble
document.addEventListener("visibilitychange", () => reload());
window.setInterval(reload, SECONDS * 1000);
