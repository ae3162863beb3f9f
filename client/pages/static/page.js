// The clinician's page: an image is read as soon as it is chosen, explained, compared, judged.

import { offerCase, watchCase, withholdCase } from "./case.js";
import { watchImage } from "./image.js";
import { clearReading, showReading } from "./reading.js";
import { predict } from "./service.js";
import { clearSimilar, showSimilar } from "./similar.js";
import { refresh, watchStatus } from "./status.js";
import { watchWaiting } from "./waiting.js";
import { clearWhy, showWhy, watchWhy } from "./why.js";

const UNREADABLE = [413, 415, 422];

let running = new AbortController();

async function read(image, caseId = null) {
  // An answer to an earlier image must never appear beside this one.
  running.abort();
  const mine = new AbortController();
  running = mine;
  offerCase(image, caseId);
  clearWhy();
  clearSimilar();
  clearReading("Reading the image…");
  try {
    const subject = { image, caseId };
    const answer = await predict(subject, mine.signal);
    if (mine.signal.aborted) return;
    const proposed = showReading(answer);
    offerCase(image, caseId, proposed);
    showWhy(subject, proposed, mine.signal);
    showSimilar(subject, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    clearReading(error.message, true);
    if (caseId === null && UNREADABLE.includes(error.status)) withholdCase();
  }
  refresh();
}

const show = watchImage(read, (message) => clearReading(message, true));
watchCase();
watchWhy();
watchWaiting((image, caseId) => { show(image); read(image, caseId); });
watchStatus();
refresh();
