// Small things that every page needs: elements, words for numbers and times, names of classes.

export const byId = (id) => document.getElementById(id);

const display = JSON.parse(document.body.dataset.display ?? "{}");

// A class as a clinician calls it; a class that this site has no words for keeps its own name.
export const named = (label) => display[label] ?? label;

// A figure is never shown as impossible or certain because of rounding.
export function percent(value) {
  if (value > 0 && value < 0.0005) return "< 0.1\u00a0%";
  if (value < 1 && value >= 0.9995) return "> 99.9\u00a0%";
  return `${(value * 100).toFixed(1)}\u00a0%`;
}

export function clock(moment) {
  return `${new Date(moment).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

export function element(name, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, dataset ?? {});
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const SOURCES = { dicom: "from the PACS", http: "uploaded", import: "imported" };

// How a case came to this site.
export const sourceOf = (source) => SOURCES[source] ?? source;

export const badge = (kind, text) => element("span", { className: `badge ${kind}` }, text);

// `quiet` is spoken by screen readers and not shown.
export function say(status, message, kind = "") {
  status.className = `status ${kind}`.trim();
  status.textContent = message;
}

// A picture of a stored case; it says itself when it cannot be had.
export function thumbnail(caseId, alt, side = 192) {
  const image = element("img", { alt, loading: "lazy", decoding: "async" });
  image.src = `/review/${encodeURIComponent(caseId)}/image?side=${side}`;
  return image;
}
