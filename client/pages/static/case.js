// Storing the image as a case and confirming its label. Every new image starts from empty fields,
// so that one patient's number never stays beside another's image.

import { confirmCase, storeCase } from "./service.js";

const byId = (id) => document.getElementById(id);
const NOTHING = { image: null, caseId: null };
let current = NOTHING;

export function offerImage(image) {
  current = { image, caseId: null };
  byId("store-form").reset();
  byId("confirm-form").reset();
  byId("store-fields").disabled = false;
  byId("confirm-fields").disabled = true;
  say("Not stored yet.");
}

export function watchCase() {
  byId("store-form").addEventListener("submit", (event) => handle(event, store));
  byId("confirm-form").addEventListener("submit", (event) => handle(event, confirm));
}

async function store(mine) {
  byId("store-fields").disabled = true;
  const fields = { patient_id: byId("patient").value.trim(), age: byId("age").value, sex: byId("sex").value };
  try {
    const stored = await storeCase(mine.image, fields);
    if (current !== mine) return;
    mine.caseId = stored.case_id;
    const done = stored.status === "confirmed";
    byId("confirm-fields").disabled = done;
    if (done) say(`This image is stored already, confirmed as ${stored.label}.`, "done");
    else {
      say("Stored. It waits for its label.", "done");
      byId("label").focus();
    }
  } catch (error) {
    if (current === mine) byId("store-fields").disabled = false;
    throw error;
  }
}

async function confirm(mine) {
  const label = byId("label").value;
  byId("confirm-fields").disabled = true;
  try {
    await confirmCase(mine.caseId, label);
    if (current === mine) say(`Stored, and confirmed as ${label}.`, "done");
  } catch (error) {
    if (current === mine) byId("confirm-fields").disabled = false;
    throw error;
  }
}

async function handle(event, work) {
  event.preventDefault();
  const mine = current;
  try {
    await work(mine);
  } catch (error) {
    if (current === mine) say(error.message, "failed");
  }
}

function say(message, kind = "") {
  const status = byId("case-status");
  status.className = `status ${kind}`.trim();
  status.textContent = message;
}
