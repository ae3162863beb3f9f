// The picture of why: a heat map over the image, faded in and out, and in words where it lies.

import { byId, named } from "./dom.js";
import { explain } from "./service.js";

let shown = null; // what is on the page, and the signal that ends with it

export function clearWhy() {
  shown = null;
  byId("why").hidden = true;
  byId("why-controls").hidden = true;
  const overlay = byId("overlay");
  if (overlay.src) URL.revokeObjectURL(overlay.src);
  overlay.removeAttribute("src");
  overlay.hidden = true;
}

export async function showWhy(subject, className, signal) {
  shown = { subject, signal };
  byId("why").hidden = false;
  if (className) byId("why-class").value = className;
  await draw("grad-cam", className);
}

async function draw(method, className) {
  const mine = shown;
  const status = byId("why-status");
  status.textContent = "Drawing where the model looked…";
  try {
    const found = await explain(mine.subject, method, className, mine.signal);
    if (shown !== mine) return;
    show(found);
    status.textContent = "";
  } catch (error) {
    if (shown !== mine || error.name === "AbortError") return;
    byId("why-controls").hidden = byId("overlay").hidden;
    status.textContent = error.absent ? `There is no picture of why here. ${error.message}` : error.message;
  }
}

function show(found) {
  const overlay = byId("overlay");
  if (overlay.src) URL.revokeObjectURL(overlay.src);
  const bytes = Uint8Array.from(atob(found.overlay_png), (character) => character.charCodeAt(0));
  overlay.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  const words = found.class ? found.regions.replaceAll(found.class, named(found.class)) : found.regions;
  overlay.alt = `Heat map over the image. ${words}`;
  overlay.hidden = false;
  byId("picture").hidden = false;
  byId("why-words").textContent = words;
  byId("why-controls").hidden = false;
  fade();
}

function fade() {
  const strength = byId("why-strength");
  byId("overlay").style.opacity = String(Number(strength.value) / 100);
  strength.setAttribute("aria-valuetext", `${strength.value} % heat map`);
}

export function watchWhy() {
  byId("why-strength").addEventListener("input", fade);
  byId("why-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (shown) draw(byId("why-method").value, byId("why-class").value);
  });
}
