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

const post = (path, document = {}) => call(path, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(document),
});

const inPath = (path, caseId, rest = "") => `${path}/${encodeURIComponent(caseId)}${rest}`;

function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

export const predict = (image, signal) =>
  call("/predict", { method: "POST", body: multipart(image, {}), signal });

export const explain = (image, method, className, signal) =>
  call("/explain", { method: "POST", body: multipart(image, { method, class: className }), signal });

export const similar = (image, signal) =>
  call("/similar", { method: "POST", body: multipart(image, {}), signal });

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

export async function storedImage(caseId, signal) {
  const response = await fetch(inPath("/review", caseId, "/image?side=2048"), { cache: "no-store", signal });
  if (!response.ok) throw new Refused({ code: "image", what: "The stored picture cannot be had." }, response.status);
  return response.blob();
}
