// The review: a list of cases to judge, and one case with the form for an opinion.

import { badge, byId, clock, counted, element, named, percent, say, sourceOf, thumbnail } from "./dom.js";
import { showHistory } from "./history.js";
import { dismissFlag, giveOpinion, queue, reviewed, withdrawCase } from "./service.js";
import { refresh, watchStatus } from "./status.js";

const STATES = {
  waiting: ["go", "not read yet"], unsure: ["warn", "somebody was unsure"], conflict: ["bad", "in conflict"],
  held: ["warn", "held by a warning"], disputed: ["warn", "disputed"], confirmed: ["good", "confirmed"],
  withdrawn: ["dull", "withdrawn"],
};
// A case on which somebody has said something waits for another reader, and not for the first.
const standing = (state, opinions) => (state === "waiting" && opinions > 0
  ? ["go", "waits for a second reader"] : STATES[state] ?? ["dull", state]);
const PAGE = 50;
let cases = [];
let next = null;
let open = null; // the case that is shown, as the service gave it

const hides = () => byId("hide-answer").checked;

async function list(more = false) {
  const status = byId("queue-status");
  try {
    const found = await queue(byId("queue-state").value, more ? next : null, PAGE);
    cases = more ? [...cases, ...found.cases] : found.cases;
    next = found.next_after;
    const all = Object.values(found.counts).reduce((sum, count) => sum + count, 0);
    say(status, cases.length ? `${counted(all, "case")} in all, the oldest first.` : "Nothing waits here.");
  } catch (error) {
    say(status, error.message, "failed");
  }
  byId("queue").replaceChildren(...cases.map(line));
  byId("queue-more").hidden = next === null;
  mark();
}

function line(one) {
  const [kind, words] = standing(one.state, one.opinions);
  const lines = element("span", { className: "lines" },
    element("span", {}, badge(kind, words)),
    element("span", { className: "small" }, [sourceOf(one.source), one.age_band, one.sex].filter(Boolean).join(", ")),
    element("span", { className: "small" }, clock(one.created_at)),
    element("span", { className: "small" }, said(one)));
  const button = element("button", { type: "button", dataset: { case: one.case_id } }, thumbnail(one.case_id, ""), lines);
  button.addEventListener("click", () => show(one.case_id));
  return element("li", {}, button);
}

function said(one) {
  const opinions = one.opinions ? counted(one.opinions, "opinion") : "no opinion yet";
  const mine = one.judged_by_me ? ", one of them yours" : "";
  const model = one.answer && !hides() ? `; model: ${one.answer.verdict}${one.answer.referred ? ", referred" : ""}` : "";
  return `${opinions}${mine}${model}`;
}

function mark() {
  for (const button of byId("queue").querySelectorAll("button")) {
    if (button.dataset.case === open?.case_id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

async function show(caseId, focus = true) {
  try {
    render(await reviewed(caseId));
    if (focus) byId("case-heading").focus();
  } catch (error) {
    say(byId("queue-status"), error.message, "failed");
  }
}

function render(found) {
  const other = open?.case_id !== found.case_id;
  open = found;
  byId("case").hidden = false;
  byId("no-case").hidden = true;
  history.replaceState(null, "", `?case=${encodeURIComponent(found.case_id)}`);
  if (other) fresh(found);
  const [kind, words] = standing(found.state, found.opinions.length);
  byId("case-state").replaceChildren(badge(kind, words), found.label ? ` as ${named(found.label)}` : "");
  const proposed = found.proposed;
  const showsProposal = proposed !== null && !(proposed.by === "model" && hides());
  byId("agree-choice").hidden = !showsProposal;
  byId("agree-label").textContent = showsProposal ? `${named(proposed.label)} (${proposed.by === "model" ? "the model" : "a reader"} says so)` : "";
  const gone = found.status === "withdrawn";
  byId("case-image").hidden = byId("withdraw").hidden = gone;
  byId("opinion-fields").disabled = byId("give").disabled = gone;
  renderAnswer(found);
  renderFlags(found);
  renderOpinions(found);
  renderLookAlikes(found);
  if (byId("history").open) showHistory(byId("history-body"), found.case_id);
  mark();
}

function fresh(found) {
  byId("opinion-form").reset();
  byId("withdraw-form").reset();
  byId("withdraw").open = false;
  byId("history").open = false;
  say(byId("opinion-status"), "");
  const facts = [found.age_band && `age ${found.age_band}`, found.sex, `stored ${clock(found.created_at)}`,
    sourceOf(found.source), `${found.split === "train" ? "training" : "holdout"} side`];
  byId("case-facts").textContent = facts.filter(Boolean).join(", ");
  if (found.status !== "withdrawn") byId("case-image").src = `/review/${encodeURIComponent(found.case_id)}/image?side=1024`;
  byId("case-heading").textContent = `Case ${found.case_id.slice(0, 8)}`;
}

function renderAnswer(found) {
  const box = byId("model-answer");
  const judged = found.opinions.length > 0;
  if (found.blinded) {
    box.replaceChildren(element("p", { className: "small" }, "This site has its readers judge first: the model's answer and other opinions come after yours."));
  } else if (hides() && !judged) {
    box.replaceChildren(element("p", { className: "small" }, "Hidden until you have judged."));
  } else if (found.answers.length === 0) {
    box.replaceChildren(element("p", { className: "small" }, "The model was not asked about this picture."));
  } else {
    box.replaceChildren(...found.answers.slice().reverse().map(answer));
  }
}

function answer(one) {
  const top = Object.entries(one.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 3);
  const words = top.map(([name, probability]) => `${named(name)} ${percent(probability)}`).join(", ");
  return element("p", {},
    badge(one.verdict === "positive" ? "bad" : "good", one.verdict), " ", one.referred ? badge("warn", "refer to a human") : "",
    ` Model version ${one.model_version}: ${words}.`,
    one.warnings.length ? element("span", { className: "small" }, ` Warned of: ${one.warnings.join(", ")}.`) : "");
}

function renderFlags(found) {
  const flags = found.flags.filter((flag) => flag.dismissed_by === null);
  byId("flags").hidden = flags.length === 0;
  byId("flags").replaceChildren(...flags.map((flag) => {
    const aside = element("button", { type: "button", className: "button quiet-button slim" }, "Looked into; set it aside");
    aside.addEventListener("click", () => change(() => dismissFlag(found.case_id, flag.code), "The warning is set aside."));
    return element("li", {}, flag.message, flag.blocks ? element("strong", {}, " It holds this case.") : "", element("br"), aside);
  }));
}

function renderOpinions(found) {
  const words = { agree: "agreed on", correct: "said" };
  const lines = found.opinions.map((one) => element("li", {},
    element("strong", {}, one.reader), ` ${one.verdict === "unsure" ? "was unsure" : `${words[one.verdict]} ${named(one.label)}`} `,
    element("span", { className: "small" }, `${clock(one.given_at)}${one.answer_version ? `, having seen version ${one.answer_version}'s answer` : ""}${one.blinded ? ", blind" : ""}`)));
  byId("opinions").replaceChildren(...(lines.length ? lines : [element("li", { className: "small" }, found.blinded ? "Shown after your own opinion." : "Nothing yet.")]));
}

function renderLookAlikes(found) {
  byId("look-alikes").hidden = found.look_alikes.length === 0;
  byId("look-alike-list").replaceChildren(...found.look_alikes.map((one) => {
    const words = one.same_patient ? "same patient" : "another patient";
    const picture = one.status === "withdrawn" ? "" : thumbnail(one.case_id, "");
    return element("li", {}, element("a", { className: "thumb", href: `?case=${encodeURIComponent(one.case_id)}` }, picture, element("span", {}, words)));
  }));
}

async function change(work, done) {
  const status = byId("opinion-status");
  try {
    const found = await work();
    if (found.opinions) render(found);
    say(status, done, "done");
    await list();
    return true;
  } catch (error) {
    say(status, error.message, "failed");
    if (error.code === "review-changed") show(open.case_id, false);
    return false;
  }
}

async function give(event) {
  event.preventDefault();
  const form = byId("opinion-form");
  const verdict = form.elements.verdict.value;
  const label = byId("label").value;
  const status = byId("opinion-status");
  if (!verdict) { say(status, "Choose agree, correct or unsure.", "failed"); return; }
  if (verdict === "correct" && !label) { say(status, "Choose the right diagnosis.", "failed"); byId("label").focus(); return; }
  // What is agreed with is named, so that it cannot be another label than the one that was shown.
  const given = { verdict, seen: open.seen };
  if (verdict === "correct") given.label = label;
  if (verdict === "agree" && !open.blinded) given.label = open.proposed.label;
  await change(() => giveOpinion(open.case_id, given), "Your opinion is kept.");
}

function goOn() {
  const at = cases.findIndex((one) => one.case_id === open?.case_id);
  const rest = [...cases.slice(at + 1), ...cases.slice(0, Math.max(0, at))];
  const following = rest.find((one) => !one.judged_by_me) ?? rest[0];
  if (following) show(following.case_id);
  else say(byId("opinion-status"), "There is no other case in the list.");
}

// Single keys count only within the form (WCAG 2.2, 2.1.4), and never while a diagnosis is chosen.
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const key = event.key.toLowerCase();
  const verdict = { a: "agree", c: "correct", u: "unsure" }[key];
  if (verdict && !(verdict === "agree" && byId("agree-choice").hidden)) {
    byId("opinion-form").elements.verdict.value = verdict;
    if (verdict === "correct") byId("label").focus();
    event.preventDefault();
  } else if (key === "n") { goOn(); event.preventDefault(); }
}

async function withdraw(event) {
  event.preventDefault();
  const caseId = open.case_id;
  const gone = await change(() => withdrawCase(caseId), "The case is withdrawn.");
  if (gone) show(caseId, false);
}

function watch() {
  const hide = byId("hide-answer");
  hide.checked = window.localStorage.getItem("hide-answer") === "yes";
  byId("model-says").querySelector(".check").hidden = document.body.dataset.blinded === "yes";
  hide.addEventListener("change", () => {
    window.localStorage.setItem("hide-answer", hide.checked ? "yes" : "no");
    if (open) render(open);
    byId("queue").replaceChildren(...cases.map(line));
    mark();
  });
  byId("queue-state").addEventListener("change", () => list());
  byId("queue-more").addEventListener("click", () => list(true));
  byId("opinion-form").addEventListener("submit", give);
  byId("opinion-form").addEventListener("keydown", keys);
  byId("label").addEventListener("change", () => { byId("opinion-form").elements.verdict.value = "correct"; });
  byId("next").addEventListener("click", goOn);
  byId("withdraw-form").addEventListener("submit", withdraw);
  byId("history").addEventListener("toggle", () => {
    if (byId("history").open) showHistory(byId("history-body"), open.case_id);
  });
}

watch();
watchStatus();
refresh();
list();
const asked = new URLSearchParams(window.location.search).get("case");
if (asked) show(asked);
