// Keeps the page up to date: the service says that something changed, the page fetches itself and
// takes over the parts marked data-live. A part in which somebody is typing is left as it is.

const status = document.getElementById("live-status");

async function refresh() {
  const answer = await fetch(location.href, { headers: { "Wardround-Live": "1" }, credentials: "same-origin" });
  if (answer.redirected) {
    location.reload(); // the session has ended
    return;
  }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const renewed = fresh.getElementById(old.id);
    if (!renewed || old.innerHTML === renewed.innerHTML || old.contains(document.activeElement)) continue;
    const open = [...old.querySelectorAll("details")].map((part) => part.open);
    old.replaceChildren(...renewed.childNodes);
    old.querySelectorAll("details").forEach((part, index) => { part.open = open[index] ?? part.open; });
  }
  status.textContent = `Up to date at ${new Date().toLocaleTimeString()}.`;
}

const source = new EventSource(`/page/live?seen=${document.body.dataset.drawnFrom}`);
source.addEventListener("changed", refresh);
source.addEventListener("error", () => { status.textContent = "Not connected to the coordinator; trying again."; });
source.addEventListener("open", () => { status.textContent = "This page keeps itself up to date."; });
