// Showing an answer: verdict, threshold, a bar and a number for each class, the model that read it.

const byId = (id) => document.getElementById(id);
const percent = (value) => `${(value * 100).toFixed(1)} %`;

export function clearReading(message, failed = false) {
  byId("reading").hidden = true;
  say(message, failed);
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
  byId("positive-fill").style.width = percent(answer.positive_probability).replace(" ", "");
  byId("threshold").style.left = percent(answer.threshold).replace(" ", "");
  byId("threshold-label").textContent = `Line: threshold ${percent(answer.threshold)}`;
  byId("classes").replaceChildren(...rows(answer));
  byId("reading-version").textContent = `${answer.model_version} (${answer.model_digest.slice(0, 12)})`;
  byId("reading-digest").textContent = answer.model_digest;
  byId("reading-request").textContent = answer.request_id;
  byId("reading-time").textContent = `${Math.round(answer.milliseconds)} ms`;
  byId("reading").hidden = false;
  say(`The image was read: ${answer.verdict}.`);
}

function rows(answer) {
  const ranked = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  return ranked.map(([name, probability]) => {
    const head = element("th", { scope: "row" }, name);
    if (answer.positive_classes.includes(name)) head.append(element("span", { className: "tag" }, "positive"));
    const fill = element("div", { className: "fill" });
    fill.style.width = percent(probability).replace(" ", "");
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

function say(message, failed = false) {
  const status = byId("reading-status");
  status.className = failed ? "status failed" : "status";
  status.textContent = message;
}
