// Keeps the page up to date: the service says that something changed, the page fetches itself and
// takes over the parts marked data-live. A part in which somebody types waits until they are done.
// Whatever keeps the page from being up to date is said in its foot.

const AGAIN_SECONDS = 5;
const CONNECT_AGAIN_SECONDS = 10;
const LONGEST_ANSWER_SECONDS = 10;
const TYPED = "input, select, textarea";

const status = document.getElementById("live-status");
const page = {
  connected: true, readable: true, typedIn: false, otherForms: false,
  at: "", // when it was last read anew
  drawnFrom: document.body.dataset.drawnFrom, // the state that it shows
};
let reading = false;
let wanted = false;
let again = null;

function tell() {
  const read = page.at ? `Up to date at ${page.at}.` : "This page keeps itself up to date.";
  const old = page.at ? `It is as it was at ${page.at}.` : "It is as it was when it was loaded.";
  if (!page.readable) status.textContent = `Not up to date: the coordinator did not answer as it should; trying again. ${old}`;
  else if (!page.connected) status.textContent = `Not connected to the coordinator; trying again. ${old}`;
  else if (page.typedIn) status.textContent = "Not up to date: a part of this page waits until nobody types in it.";
  else if (page.otherForms) status.textContent = `${read} What can be decided here has changed: load the page again for that.`;
  else status.textContent = read;
}

// One at a time: of two answers the older one could come last.
async function refresh() {
  wanted = true;
  if (reading) return;
  reading = true;
  window.clearTimeout(again);
  try {
    while (wanted) {
      wanted = false;
      await renew();
    }
    page.readable = true;
  } catch {
    page.readable = false;
    again = window.setTimeout(refresh, AGAIN_SECONDS * 1000);
  }
  reading = false;
  tell();
}

async function renew() {
  const answer = await fetch(location.href, {
    headers: { "Wardround-Live": "1" }, credentials: "same-origin",
    signal: AbortSignal.timeout(LONGEST_ANSWER_SECONDS * 1000),
  });
  if (answer.redirected) location.reload(); // the session has ended
  if (!answer.ok || answer.redirected) throw new Error(`answered ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  page.typedIn = false;
  for (const old of document.querySelectorAll("[data-live]")) {
    const renewed = fresh.getElementById(old.id);
    if (!renewed || old.innerHTML === renewed.innerHTML) continue;
    if (focusedIn(old)?.matches(TYPED)) page.typedIn = true;
    else takeOver(old, renewed);
  }
  page.otherForms = forms(fresh) !== forms(document);
  page.drawnFrom = fresh.body.dataset.drawnFrom;
  page.at = new Date().toLocaleTimeString();
}

const focusedIn = (part) => (part.contains(document.activeElement) ? document.activeElement : null);

// Forms stay as they were drawn. What they would do is where they go, and what they say was shown.
const forms = (of) => [...of.querySelectorAll("main form")].map((form) =>
  [form.getAttribute("action"), ...[...form.querySelectorAll("[type=hidden]")].map((field) => field.value)].join(" ")).join("\n");

function takeOver(old, renewed) {
  const focused = focusedIn(old);
  const place = focused ? alike(old, focused).indexOf(focused) : -1;
  const open = [...old.querySelectorAll("details")].map((part) => part.open);
  const scrolled = [...old.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
  old.replaceChildren(...renewed.childNodes);
  old.querySelectorAll("details").forEach((part, index) => { part.open = open[index] ?? part.open; });
  old.querySelectorAll(".scroll").forEach((part, index) => { part.scrollLeft = scrolled[index] ?? 0; });
  if (focused) alike(old, focused).at(place)?.focus({ preventScroll: true });
}

// What leads to the same place, or is called the same.
function alike(part, element) {
  const name = (one) => one.getAttribute("href") ?? one.getAttribute("aria-label") ?? one.textContent;
  return [...part.querySelectorAll(element.localName)].filter((one) => name(one) === name(element));
}

function listen() {
  const source = new EventSource(`/page/live?seen=${page.drawnFrom}`);
  source.addEventListener("changed", refresh);
  source.addEventListener("open", () => { page.connected = true; tell(); });
  source.addEventListener("error", () => {
    page.connected = false;
    tell();
    // A browser connects again by itself when it was cut off, but not when it was refused.
    if (source.readyState !== EventSource.CLOSED) return;
    window.setTimeout(() => { refresh(); listen(); }, CONNECT_AGAIN_SECONDS * 1000);
  });
}

document.addEventListener("focusout", () => { if (page.typedIn) refresh(); });
listen();
