// Choosing an image: by the file dialog, by dropping it, by pasting it.

import { byId } from "./dom.js";

export function watchImage(onImage, onRefused) {
  const maximumBytes = Number(document.body.dataset.maximumBytes);
  const drop = byId("drop");
  const file = byId("file");

  const take = (chosen) => {
    if (!chosen) return;
    if (chosen.size > maximumBytes) {
      onRefused(`The image is larger than ${Math.round(maximumBytes / 1048576)} MiB. Export it smaller.`);
      return;
    }
    show(chosen);
    onImage(chosen);
  };
  const takeChosen = () => {
    const chosen = file.files[0];
    take(chosen);
    file.value = ""; // so that the same file can be chosen again
  };
  file.addEventListener("change", takeChosen);
  queueMicrotask(takeChosen); // on a slow line it may have been chosen before this script was there
  // Dropped beside the box, a browser would open the image in place of the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  window.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  return show;
}

function show(chosen) {
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(chosen);
  byId("picture").hidden = false;
  preview.hidden = false;
  // Browsers show no TIFF or DICOM; the service reads it all the same, and the picture of why shows it.
  preview.onerror = () => { preview.hidden = true; };
  byId("drop-hint").textContent = "For another one, drop it here, or";
  byId("file-label").textContent = "Choose another image";
}
