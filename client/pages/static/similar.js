// Confirmed cases of this site that the model sees most like the image.

import { byId, counted, element, named, thumbnail } from "./dom.js";
import { similar } from "./service.js";

export function clearSimilar() {
  byId("similar").hidden = true;
  byId("similar-list").replaceChildren();
}

export async function showSimilar(subject, signal) {
  const status = byId("similar-status");
  byId("similar").hidden = false;
  status.textContent = "Looking among this site's confirmed cases…";
  try {
    const found = await similar(subject, signal);
    if (signal.aborted) return;
    byId("similar-list").replaceChildren(...found.cases.map(card));
    status.textContent = found.cases.length ? `Nearest first, of ${counted(found.compared ?? found.cases.length, "case")}; by the model's own eye.`
      : "There is no confirmed case here yet.";
  } catch (error) {
    if (signal.aborted) return;
    if (error.absent) clearSimilar();
    else status.textContent = error.message;
  }
}

function card(found) {
  const name = named(found.label);
  const link = element("a", { className: "thumb", href: `/review-queue?case=${encodeURIComponent(found.case_id)}` },
    thumbnail(found.case_id, ""), element("span", {}, name));
  return element("li", {}, link);
}
