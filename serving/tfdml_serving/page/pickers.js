// The ways in which a picture comes to the page: dropped, pasted, chosen, photographed.

import { find, h, icon } from "./dom.js";
import { picturesOf } from "./photo.js";

let take = () => {};
let refuse = () => {};

/** Calls `taken(file)` for every picture that a person gives, `refused(text)` for what is none. */
export function takePictures(taken, refused) {
  take = taken;
  refuse = refused;
  for (const place of document.querySelectorAll("[data-pickers]")) place.replaceChildren(...pickers("Choose a photo"));
  addEventListener("paste", (event) => {
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.preventDefault();
    give(files, "What was pasted is not a picture.");
  });
  takeDrops();
}

/** The buttons that open the file chooser and, on a telephone, the camera. */
export function pickers(label) {
  return [picker(label, "picture", "strong", "picker", {}), picker("Take a photo", "camera", "quiet", "picker by-camera", { capture: "environment" })];
}

function picker(label, sign, look, place, more) {
  const input = h("input", { type: "file", accept: "image/*", class: "sr", tabindex: "-1", "aria-hidden": "true", ...more });
  input.addEventListener("change", () => {
    give(input.files, "This file is not a picture.");
    input.value = "";
  });
  const button = h("button", { type: "button", class: look, onclick: () => input.click() }, icon(sign), h("span", { class: "label" }, label));
  return h("span", { class: place }, button, input);
}

function takeDrops() {
  const cover = find("#drop");
  const ours = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const leave = () => {
    depth = 0;
    cover.classList.remove("over");
  };
  addEventListener("dragenter", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    depth += 1;
    cover.classList.add("over");
  });
  addEventListener("dragover", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("dragleave", (event) => {
    if (ours(event) && --depth <= 0) leave();
  });
  addEventListener("drop", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    leave();
    give(event.dataTransfer.files, "What was dropped is not a picture.");
  });
}

function give(files, otherwise) {
  if (!files?.length) return;
  const [first] = picturesOf(files);
  if (first) take(first);
  else refuse(`${otherwise} Choose a photo, such as a JPEG or PNG file.`);
}
