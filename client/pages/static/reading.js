// Showing an answer: verdict, threshold, how sure, what cannot be ruled out, a bar for each class.

import { byId, element, named, percent, say } from "./dom.js";

const width = (value) => `${Math.min(1, Math.max(0, value)) * 100}%`;

const REASONS = {
  "uncertain": "The model is less sure of this image than this site allows.",
  "set-empty": "No diagnosis fits as well as the right one did for this site's confirmed cases.",
  "set-spans-verdict": "Neither a positive nor a negative diagnosis can be ruled out.",
  "set-against-negative": "The verdict is negative, but no negative diagnosis remains.",
  "set-large": "Too many diagnoses cannot be ruled out.",
  "not-of-this-kind": "The image may be of a kind that the model does not know.",
};

export function clearReading(message, failed = false) {
  byId("reading").hidden = true;
  say(byId("reading-status"), message, failed ? "failed" : "");
}

// Returns the diagnosis that the answer stands for: the likeliest on the verdict's side.
export function showReading(answer) {
  const positive = answer.verdict === "positive";
  showVerdict(answer, positive);
  showRefer(answer);
  showWarnings(answer.warnings ?? []);
  showSure(answer);
  showSet(answer);
  byId("calibrated").textContent = answer.calibrated_probabilities
    ? "(calibrated on this site's cases; the verdict is made from the model's own)" : "(as released, not calibrated here)";
  byId("classes").replaceChildren(...rows(answer));
  byId("reading-version").textContent = `${answer.model_version} (${answer.model_digest.slice(0, 12)})${answer.head_digest ? ", personalised" : ""}${together(answer)}`;
  byId("reading-digest").textContent = answer.model_digest;
  byId("reading-request").textContent = answer.request_id;
  byId("reading-time").textContent = `${Math.round(answer.milliseconds)} ms`;
  byId("reading").hidden = false;
  // Spoken by screen readers; everyone else sees the verdict itself.
  const refer = answer.refer ? " Refer it to a human." : "";
  say(byId("reading-status"), `The image was read: ${answer.verdict}.${refer}`, "quiet");
  return likeliest(answer, positive);
}

const together = (answer) => (answer.together_with?.length ? `, with ${answer.together_with.map((v) => `version ${v}`).join(", ")}` : "");

function likeliest(answer, positive) {
  const side = Object.entries(answer.probabilities)
    .filter(([name]) => answer.positive_classes.includes(name) === positive);
  return side.sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
}

function showVerdict(answer, positive) {
  byId("verdict").className = `verdict ${answer.verdict}`;
  byId("verdict-mark").textContent = positive ? "▲" : "●";
  byId("verdict-word").textContent = positive ? "Positive" : "Negative";
  const whose = answer.threshold_source === "site" ? "this site's own threshold" : "the release's threshold";
  byId("verdict-reason").textContent = `${answer.positive_classes.map(named).join(", ")}: together ${percent(answer.positive_probability)}, `
    + `${positive ? "at or above" : "below"} ${whose} of ${percent(answer.threshold)}.`;
  byId("positive-fill").style.width = width(answer.positive_probability);
  byId("threshold").style.left = width(answer.threshold);
  byId("threshold-label").textContent = `Line: ${whose}, ${percent(answer.threshold)}`;
}

function showRefer(answer) {
  byId("refer").hidden = !answer.refer;
  const reasons = (answer.refer_reasons ?? []).map((code) => REASONS[code] ?? code);
  byId("refer-reasons").replaceChildren(...reasons.map((text) => element("li", {}, text)));
}

function showWarnings(warnings) {
  byId("warnings").hidden = warnings.length === 0;
  byId("warnings").replaceChildren(...warnings.map((warning) =>
    element("li", {}, warning.message)));
}

function showSure(answer) {
  const value = answer.uncertainty;
  byId("sure").hidden = value === null || value === undefined;
  if (byId("sure").hidden) return;
  const high = (answer.refer_reasons ?? []).includes("uncertain");
  const word = high ? "above what this site allows" : value < 0.05 ? "low" : value < 0.15 ? "moderate" : "high";
  byId("sure-word").textContent = `Uncertainty is ${word}`;
  byId("sure-reason").textContent = `(${value.toFixed(2)} of 1).`;
  byId("sure-fill").className = high ? "fill high" : "fill";
  byId("sure-fill").style.width = width(value);
}

function showSet(answer) {
  const set = answer.prediction_set;
  byId("set").hidden = !set || !answer.coverage;
  if (byId("set").hidden) return;
  const positive = set.map((name) => answer.positive_classes.includes(name));
  const against = set.length > 0 && positive.every((one) => one !== (answer.verdict === "positive"));
  const often = `in ${Math.round(answer.coverage * 100)} % of cases`;
  const words = set.length === 0 ? "Nothing fits as it should: no diagnosis can be named with confidence."
    : set.length === 1 ? `Only ${named(set[0])} remains; such an answer holds the right diagnosis ${often}.`
      : `One of: ${set.map(named).join(", ")}; the right one is among them ${often}.`;
  byId("set").textContent = against ? `${words} The verdict is ${answer.verdict} all the same: it goes by the threshold alone.` : words;
}

function rows(answer) {
  const shown = answer.calibrated_probabilities ?? answer.probabilities;
  const ranked = Object.entries(shown).sort((a, b) => b[1] - a[1]);
  return ranked.map(([name, probability]) => {
    const counted = answer.positive_classes.includes(name);
    const head = element("th", { scope: "row" }, named(name));
    if (counted) head.append(" ", element("span", { className: "dot" }, element("span", { className: "quiet" }, "added up for the verdict")));
    const fill = element("div", { className: counted ? "fill counted" : "fill" });
    fill.style.width = width(probability);
    const track = element("div", { className: "track", ariaHidden: "true" }, fill);
    return element("tr", {}, head, element("td", {}, track), element("td", {}, percent(probability)));
  });
}
