// The service's HTTP interface. Failures are thrown as Refused, with words fit for the page.

export class Refused extends Error {
  constructor(problem) {
    super([problem.what, problem.meaning, problem.action].filter(Boolean).join(" "));
    this.code = problem.code;
  }
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ code: "unreachable", what: "The service cannot be reached.", action: "Try again, or tell hospital IT." });
  }
  const document = await response.json().catch(() => null);
  if (document === null) throw new Refused({ code: "unreadable", what: `The service failed (${response.status}).` });
  if (!response.ok && document.code) throw new Refused(document);
  return document;
}

function multipart(image, fields) {
  const body = new FormData();
  // Under a name of our own: the file's may name the patient.
  body.append("image", image, "image");
  for (const [name, value] of Object.entries(fields)) if (value) body.append(name, value);
  return body;
}

export const predict = (image, signal) =>
  call("/predict", { method: "POST", body: multipart(image, {}), signal });

export const storeCase = (image, fields) =>
  call("/cases", { method: "POST", body: multipart(image, fields) });

export const confirmCase = (caseId, label) =>
  call(`/cases/${encodeURIComponent(caseId)}/confirm`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ label }),
  });

export const readiness = () => call("/health/ready", {});
