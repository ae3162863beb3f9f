// The model in the page's head and the alarms below it, asked for every few seconds.

import { byId, element } from "./dom.js";
import { readiness } from "./service.js";

const SECONDS = 15;

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
  showModel(state);
  const missing = state.model_version === null
    ? ["No released model is loaded yet: images cannot be read, but cases can be stored."] : [];
  showAlarms([...missing, ...state.alarms.map((alarm) => `For hospital IT: ${alarm.message}`)]);
}

function showModel(state) {
  const model = byId("model");
  if (state.model_version === null) { model.textContent = "No model yet"; return; }
  model.replaceChildren(
    "Model ", element("span", { className: "wide" }, "version "), element("strong", {}, String(state.model_version)), " ",
    element("code", {}, state.model_digest.slice(0, 12)), state.personalised ? " personalised" : "");
  announce(state.model_version);
}

// Said once to each browser, on the page where images are read: a new version may answer otherwise.
function announce(version) {
  const note = byId("new-version");
  if (note === null) return;
  const known = Number(window.localStorage.getItem("model-version") ?? version);
  window.localStorage.setItem("model-version", String(known));
  note.hidden = known === version;
  if (note.hidden || note.dataset.version === String(version)) return;
  note.dataset.version = String(version);
  const link = element("a", { href: "/model-version" }, "What changed");
  link.addEventListener("click", () => window.localStorage.setItem("model-version", String(version)));
  const close = element("button", { type: "button", className: "plain" }, "I know");
  close.addEventListener("click", () => {
    window.localStorage.setItem("model-version", String(version));
    note.hidden = true;
  });
  note.replaceChildren(`Model version ${version} answers now, in place of version ${known}. `, link, " ", close);
}

function showAlarms(messages) {
  const box = byId("alarms");
  const shown = [...box.children].map((line) => line.textContent);
  if (shown.join("\n") === messages.join("\n")) return; // said once, not every few seconds
  box.replaceChildren(...messages.map((message) => element("p", { className: "alarm" }, message)));
}
