// The model in the page's head and the alarms below it, asked for every few seconds.

import { readiness } from "./service.js";

const SECONDS = 15;
const byId = (id) => document.getElementById(id);

export function watchStatus() {
  window.setInterval(refresh, SECONDS * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}

export async function refresh() {
  let state;
  try {
    state = await readiness();
  } catch (error) {
    showAlarms([error.message]);
    return;
  }
  const model = byId("model");
  if (state.model_version === null) model.textContent = "No model yet";
  else {
    const version = document.createElement("strong");
    version.textContent = state.model_version;
    const digest = document.createElement("code");
    digest.textContent = state.model_digest.slice(0, 12);
    model.replaceChildren("Model version ", version, " ", digest, state.personalised ? " personalised" : "");
  }
  const missing = state.model_version === null
    ? ["No released model is loaded yet: images cannot be read, but cases can be stored."] : [];
  showAlarms([...missing, ...state.alarms.map((alarm) => `For hospital IT: ${alarm.message}`)]);
}

function showAlarms(messages) {
  const box = byId("alarms");
  const shown = [...box.children].map((line) => line.textContent);
  if (shown.join("\n") === messages.join("\n")) return; // said once, not every few seconds
  box.replaceChildren(...messages.map((message) => {
    const line = document.createElement("p");
    line.className = "alarm";
    line.textContent = message;
    return line;
  }));
}
