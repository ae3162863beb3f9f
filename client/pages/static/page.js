// The clinician's page: an image is read as soon as it is chosen, and may then become a case.

import { offerImage, watchCase } from "./case.js";
import { watchImage } from "./image.js";
import { clearReading, showReading } from "./reading.js";
import { predict } from "./service.js";
import { refresh, watchStatus } from "./status.js";

let running = new AbortController();

async function read(image) {
  // An answer to an earlier image must never appear beside this one.
  running.abort();
  const mine = new AbortController();
  running = mine;
  offerImage(image);
  clearReading("Reading the image…");
  try {
    const answer = await predict(image, mine.signal);
    if (!mine.signal.aborted) showReading(answer);
  } catch (error) {
    if (!mine.signal.aborted) clearReading(error.message, true);
  }
  refresh();
}

watchImage(read, (message) => clearReading(message, true));
watchCase();
watchStatus();
