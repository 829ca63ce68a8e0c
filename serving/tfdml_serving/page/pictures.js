// Thumbnails: an <img> where the service is open; fetched with the key where it asks for one.

import { apiKey, picture, place } from "./api.js";
import { h, icon } from "./dom.js";

const MOST_KEPT = 400;
// Within these shapes a square picture loses little at its edges; longer ones are shown whole.
const [NARROWEST, WIDEST] = [0.7, 1.45];

const kept = new Map();
const seen = "IntersectionObserver" in window ? new IntersectionObserver(onSeen, { rootMargin: "400px" }) : null;

/** A picture of an item in a box; a sign where it has none. */
export function thumbnail(path, alt = "") {
  const box = h("span", { class: "picture" });
  if (!path) {
    box.append(icon("picture"));
    return box;
  }
  const image = h("img", { alt, draggable: "false", decoding: "async", loading: "lazy" });
  image.addEventListener("load", () => {
    const shape = image.naturalWidth / image.naturalHeight;
    box.classList.toggle("whole", shape < NARROWEST || shape > WIDEST);
    box.classList.add("there");
  });
  image.addEventListener("error", () => image.replaceWith(icon("picture")));
  if (!apiKey.get()) image.src = place(path);
  else if (kept.has(path)) image.src = kept.get(path);
  else if (seen) {
    image.dataset.path = path;
    seen.observe(image);
  } else fetchInto(image, path);
  box.append(image);
  return box;
}

function onSeen(entries) {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    fetchInto(target, target.dataset.path);
  }
}

async function fetchInto(image, path) {
  try {
    if (!kept.has(path)) {
      kept.set(path, URL.createObjectURL(await picture(path)));
      for (const [old, url] of [...kept].slice(0, Math.max(0, kept.size - MOST_KEPT))) {
        kept.delete(old);
        URL.revokeObjectURL(url);
      }
    }
    image.src = kept.get(path);
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}
