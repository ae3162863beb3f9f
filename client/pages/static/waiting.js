// Cases that came from the PACS or elsewhere and wait for a label, to be opened in the reading.

import { byId, clock, element, say, sourceOf, thumbnail } from "./dom.js";
import { queue, storedImage } from "./service.js";

const SHOWN = 12;

export function watchWaiting(open) {
  const box = byId("waiting");
  box.addEventListener("toggle", () => { if (box.open) list(open); });
  count();
}

async function count() {
  try {
    const found = await queue("waiting", null, 1);
    const waiting = found.counts.waiting ?? 0;
    byId("waiting-count").textContent = String(waiting);
    byId("waiting-count").hidden = waiting === 0;
  } catch (error) {
    if (error.absent) byId("waiting").hidden = true;
  }
}

async function list(open) {
  const status = byId("waiting-status");
  try {
    const found = await queue("waiting", null, SHOWN);
    byId("waiting-list").replaceChildren(...found.cases.map((one) => card(one, open)));
    say(status, found.cases.length ? "The oldest first. Choosing one reads it." : "Nothing waits.", "small");
  } catch (error) {
    say(status, error.message, "failed");
  }
}

function card(one, open) {
  const words = `${sourceOf(one.source)}, ${clock(one.created_at).slice(0, 10)}`;
  const button = element("button", { type: "button" }, thumbnail(one.case_id, ""), element("span", {}, words));
  button.addEventListener("click", async () => {
    // Where readers judge blind first, the model's answer comes after their opinion.
    if (document.body.dataset.blinded === "yes") {
      window.location.assign(`/review-queue?case=${encodeURIComponent(one.case_id)}`);
      return;
    }
    try {
      open(await storedImage(one.case_id), one.case_id);
      byId("waiting").open = false;
    } catch (error) {
      say(byId("waiting-status"), error.message, "failed");
    }
  });
  return element("li", {}, button);
}
