// The service's HTTP interface. Failures are thrown as Refused, with words fit for the page.

export class Refused extends Error {
  constructor(problem, status = 0) {
    super([problem.what, problem.meaning, problem.action].filter(Boolean).join(" "));
    this.code = problem.code;
    this.status = status;
  }

  // The part is not there, at this site or just now: the page goes on without it.
  get absent() {
    return [403, 404, 405, 501, 503].includes(this.status);
  }
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ code: "unreachable", what: "The service cannot be reached.", action: "Try again, or tell hospital IT." });
  }
  const document = await response.json().catch(() => null);
  if (document === null) throw new Refused({ code: "unreadable", what: `The service failed (${response.status}).` }, response.status);
  if (response.status === 401) throw new Refused({ code: "not-signed-in", what: "Your session has ended.", action: "Load the page again and sign in." }, 401);
  if (!response.ok && document.code) throw new Refused(document, response.status);
  return document;
}

function multipart(image, fields) {
  const body = new FormData();
  // Under a name of our own: the file's may name the patient.
  body.append("image", image, "image");
  for (const [name, value] of Object.entries(fields)) if (value) body.append(name, value);
  return body;
}

const post = (path, document = {}, signal = null) => call(path, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(document),
  signal,
});

const inPath = (path, caseId, rest = "") => `${path}/${encodeURIComponent(caseId)}${rest}`;

function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

// A stored case is asked about by its id: the picture that the page has of it may be smaller, and
// an answer to other pixels is not the case's.
function ask(what, { image, caseId }, fields, signal) {
  if (caseId === null) return call(`/${what}`, { method: "POST", body: multipart(image, fields), signal });
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value));
  return post(inPath("/review", caseId, `/${what}`), given, signal);
}

export const predict = (subject, signal) => ask("predict", subject, {}, signal);
export const explain = (subject, method, className, signal) => ask("explain", subject, { method, class: className }, signal);
export const similar = (subject, signal) => ask("similar", subject, {}, signal);

export const storeCase = (image, fields) =>
  call("/cases", { method: "POST", body: multipart(image, fields) });

export const queue = (state, after, limit) => call(query("/review", { state, after, limit }));
export const reviewed = (caseId) => call(inPath("/review", caseId));
export const giveOpinion = (caseId, opinion) => post(inPath("/review", caseId, "/opinion"), opinion);
export const dismissFlag = (caseId, code) => post(inPath("/review", caseId, `/flags/${encodeURIComponent(code)}/dismiss`));
export const withdrawCase = (caseId) => post(inPath("/review", caseId, "/withdraw"));
export const caseHistory = (caseId) => call(inPath("/review", caseId, "/history"));
export const outcomes = (parameters) => call(query("/review/outcomes", parameters));
export const monitoring = () => call("/monitoring");
export const releases = () => call("/releases");
export const send = (path, document) => post(path, document);
export const readiness = () => call("/health/ready");

// For the screen alone: see `ask`.
export async function storedImage(caseId, signal) {
  const response = await fetch(inPath("/review", caseId, "/image?side=2048"), { cache: "no-store", signal });
  if (!response.ok) throw new Refused({ code: "image", what: "The stored picture cannot be had." }, response.status);
  return response.blob();
}
