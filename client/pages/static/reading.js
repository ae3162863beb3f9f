// Showing an answer: verdict, threshold, a bar and a number for each class, the model that read it.

const byId = (id) => document.getElementById(id);
const width = (value) => `${value * 100}%`;

// A class is never shown as impossible or certain because of rounding.
function percent(value) {
  if (value > 0 && value < 0.0005) return "< 0.1 %";
  if (value < 1 && value >= 0.9995) return "> 99.9 %";
  return `${(value * 100).toFixed(1)} %`;
}

export function clearReading(message, failed = false) {
  byId("reading").hidden = true;
  say(message, failed ? "failed" : "");
}

export function showReading(answer) {
  const positive = answer.verdict === "positive";
  const named = answer.positive_classes.join(", ");
  byId("verdict").className = `verdict ${answer.verdict}`;
  byId("verdict-mark").textContent = positive ? "▲" : "●";
  byId("verdict-word").textContent = positive ? "Positive" : "Negative";
  const reason = `${named}: ${percent(answer.positive_probability)}, `
    + `${positive ? "at or above" : "below"} the threshold of ${percent(answer.threshold)}.`;
  byId("verdict-reason").textContent = reason;
  byId("positive-fill").style.width = width(answer.positive_probability);
  byId("threshold").style.left = width(answer.threshold);
  byId("threshold-label").textContent = `Line: threshold ${percent(answer.threshold)}`;
  byId("classes").replaceChildren(...rows(answer));
  byId("reading-version").textContent = `${answer.model_version} (${answer.model_digest.slice(0, 12)})${answer.head_digest ? ", personalised" : ""}`;
  byId("reading-digest").textContent = answer.model_digest;
  byId("reading-request").textContent = answer.request_id;
  byId("reading-time").textContent = `${Math.round(answer.milliseconds)} ms`;
  byId("reading").hidden = false;
  // Spoken by screen readers; everyone else sees the verdict itself.
  say(`The image was read: ${answer.verdict}.`, "quiet");
}

function rows(answer) {
  const ranked = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  return ranked.map(([name, probability]) => {
    const counted = answer.positive_classes.includes(name);
    const head = element("th", { scope: "row" }, name);
    if (counted) {
      const dot = element("span", { className: "dot" });
      dot.append(element("span", { className: "quiet" }, "added up for the verdict"));
      head.append(" ", dot);
    }
    const fill = element("div", { className: counted ? "fill counted" : "fill" });
    fill.style.width = width(probability);
    const track = element("div", { className: "track", ariaHidden: "true" });
    track.append(fill);
    const bar = element("td", {});
    bar.append(track);
    const row = element("tr", {});
    row.append(head, bar, element("td", {}, percent(probability)));
    return row;
  });
}

function element(name, properties, text = "") {
  return Object.assign(document.createElement(name), properties, text ? { textContent: text } : {});
}

function say(message, kind) {
  const status = byId("reading-status");
  status.className = `status ${kind}`.trim();
  status.textContent = message;
}
