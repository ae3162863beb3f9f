// Storing the image as a case, with an opinion. Every new image starts from empty fields, so that
// one patient's number never stays beside another's image.

import { byId, named, say } from "./dom.js";
import { giveOpinion, storeCase } from "./service.js";

let current = { image: null, caseId: null, proposed: null };

const chosen = () => byId("case-form").elements.verdict.value;

// `caseId` where the case is stored already; `proposed` once the model has answered.
export function offerCase(image, caseId, proposed = null) {
  if (current.image !== image) {
    current = { image, caseId, proposed: null };
    byId("case-form").reset();
    byId("case-link").hidden = true;
    byId("case-fields").disabled = false;
    byId("patient-fields").hidden = caseId !== null;
    say(byId("case-status"), caseId === null ? "Not stored yet." : "Stored; it waits for an opinion.");
  }
  current.proposed = proposed;
  byId("agree-choice").hidden = proposed === null;
  byId("agree-label").textContent = proposed === null ? "" : named(proposed);
}

// The service could not read the image, so it could not store it either.
export function withholdCase() {
  byId("case-fields").disabled = true;
  say(byId("case-status"), "Choose another image: this one cannot be stored.", "failed");
}

export function watchCase() {
  const form = byId("case-form");
  form.addEventListener("submit", handle);
  byId("label").addEventListener("change", () => {
    if (byId("label").value) form.elements.verdict.value = "correct";
  });
}

function opinion(mine) {
  const verdict = chosen();
  if (verdict === "agree") return { verdict, label: mine.proposed };
  if (verdict === "unsure") return { verdict };
  if (verdict !== "correct") return null;
  const label = byId("label").value;
  return label === mine.proposed ? { verdict: "agree", label } : { verdict, label };
}

async function handle(event) {
  event.preventDefault();
  const mine = current;
  const status = byId("case-status");
  if (!chosen()) { say(status, "Say first what the image shows, or that somebody says it later.", "failed"); return; }
  if (chosen() === "correct" && !byId("label").value) {
    say(status, "Choose the right diagnosis.", "failed");
    byId("label").focus();
    return;
  }
  byId("case-fields").disabled = true;
  try {
    const said = await keep(mine, opinion(mine));
    if (current === mine) say(status, said, "done");
  } catch (error) {
    if (current !== mine) return;
    byId("case-fields").disabled = false;
    say(status, error.message, "failed");
  }
  if (current === mine && mine.caseId) {
    byId("case-link").hidden = false;
    byId("case-link").firstElementChild.href = `/review-queue?case=${encodeURIComponent(mine.caseId)}`;
  }
}

// "I agree" is with the model's answer as it stands here. Where something else stands to be agreed
// with by now, another reader's label or a newer answer, the named label is an opinion of its own.
async function judge(caseId, given) {
  try {
    return await giveOpinion(caseId, given);
  } catch (error) {
    if (given.verdict !== "agree" || !["review-changed", "opinion-incomplete"].includes(error.code)) throw error;
    return giveOpinion(caseId, { verdict: "correct", label: given.label });
  }
}

async function keep(mine, given) {
  if (mine.caseId === null) {
    const fields = { patient_id: byId("patient").value.trim(), age: byId("age").value, sex: byId("sex").value };
    const stored = await storeCase(mine.image, fields);
    mine.caseId = stored.case_id;
    if (stored.status === "confirmed" && given === null) return `This image is stored already, confirmed as ${named(stored.label)}.`;
  }
  if (given === null) return "Stored. It waits for its label.";
  const found = await judge(mine.caseId, given);
  if (found.status === "confirmed") return `Stored, and confirmed as ${named(found.label)}.`;
  if (found.state === "held") return "Stored. A warning holds it until somebody sets that aside in the review.";
  if (found.state === "conflict") return "Stored. Two readers do not agree: somebody else decides.";
  if (given.verdict === "unsure") return "Stored as unsure. It waits for another opinion.";
  return "Stored. It waits for a second reader.";
}
