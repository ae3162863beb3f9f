// What happened to a case, in sentences: from its arrival to the models that it may have reached.

import { clock, element, named, sourceOf } from "./dom.js";
import { caseHistory } from "./service.js";

const SENTENCES = {
  "stored": (event) => `Stored${event.code ? `, ${sourceOf(event.code)}` : ""}.`,
  "answered": (event) => `Model version ${event.model_version} answered: ${event.verdict}.`,
  "flagged": (event) => `Warned of: ${event.code}.`,
  "flag-dismissed": (event) => `The warning ${event.code} was set aside${by(event)}.`,
  "opinion": (event) => `${event.by ?? "Somebody"} ${opined(event)}.`,
  "confirmed": (event) => `Confirmed as ${named(event.label)}${by(event)}.`,
  "corrected": (event) => `Corrected from ${named(event.previous)} to ${named(event.label)}${by(event)}.`,
  "reopened": () => "Opened again: somebody contradicts its label.",
  "training-pool": (event) => `In the pool of campaign ${event.campaign}, round ${event.round}.`,
  "holdout-pool": (event) => `In the holdout that campaign ${event.campaign}, round ${event.round}, was scored on.`,
  "withdrawn": () => "Withdrawn: picture and label are gone.",
};

const by = (event) => (event.by ? ` by ${event.by}` : "");

function opined(event) {
  const after = event.model_version ? `, having seen version ${event.model_version}'s answer` : "";
  if (event.verdict === "unsure") return `was unsure${after}`;
  return `${event.verdict === "agree" ? "agreed on" : "said"} ${named(event.label)}${after}`;
}

export async function showHistory(body, caseId) {
  body.replaceChildren(element("p", { className: "small" }, "Looking…"));
  try {
    const found = await caseHistory(caseId);
    body.replaceChildren(
      element("ol", { className: "events" }, ...together(found.events).map(event)),
      ...found.pools.map(pool));
  } catch (error) {
    body.replaceChildren(element("p", { className: "status failed" }, error.message));
  }
}

// Round after round of one campaign is one line.
function together(events) {
  const lines = [];
  for (const one of events) {
    const last = lines.at(-1);
    const pool = one.kind.endsWith("-pool");
    if (pool && last?.kind === one.kind && last.campaign === one.campaign) last.until = one.round;
    else lines.push({ ...one });
  }
  return lines;
}

function event(one) {
  const sentence = (SENTENCES[one.kind] ?? (() => one.kind))(one);
  const text = one.until ? sentence.replace(/, round \d+/, `, rounds ${one.round} to ${one.until}`) : sentence;
  return element("li", {}, element("span", { className: "small" }, clock(one.at)), element("br"), text);
}

function pool(one) {
  const rounds = one.rounds.length === 1 ? `round ${one.rounds[0]}` : `rounds ${one.rounds[0]} to ${one.rounds.at(-1)}`;
  const side = one.side === "train" ? "could have trained on it" : "were scored with it";
  const made = one.releases.length ? ` Releases kept here that came of it: ${one.releases.map((v) => `v${v}`).join(", ")}.` : "";
  const warn = one.outdated ? " It had another label then." : "";
  return element("p", {}, element("strong", {}, `Campaign ${one.campaign}: `), `${rounds} ${side}.${made}${warn}`);
}
