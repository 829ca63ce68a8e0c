// A distance as something that can be read at a glance.

import { h } from "./dom.js";

/**
 * How an answer's distances are shown: { share, text, threshold }; `share` is the part of the bar that is filled.
 *
 * Where a threshold t is known a distance d gets a score of 100 t / (t + d): 100 for the very same, 50 at the threshold, whatever
 * the metric. Without one, cosine distances, and Euclidean ones between vectors of length 1 (where cos = 1 - d²/2), become a
 * similarity from 0 to 100%; others have no end, and their bar is empty a little beyond the farthest hit.
 */
export function scaleOf(info, answer) {
  const { threshold, metric } = answer;
  if (threshold > 0) {
    const share = (distance) => threshold / (threshold + distance);
    return { share, threshold, name: "score", of: " of 100", text: (distance) => String(Math.round(100 * share(distance))) };
  }
  if (metric === "cosine" || info.normalised) {
    const cosine = metric === "cosine" ? (distance) => 1 - distance : (distance) => 1 - (distance * distance) / 2;
    const share = (distance) => Math.min(1, Math.max(0, cosine(distance)));
    return { share, threshold, name: "similarity", of: "", text: (distance) => percent(share(distance), distance) };
  }
  const end = 1.25 * Math.max(0, ...answer.hits.map((hit) => hit.distance)) || 1;
  return { share: (distance) => Math.max(0, 1 - distance / end), threshold, name: null };
}

// Only what is the very same is 100%.
function percent(share, distance) {
  const rounded = Math.round(100 * share);
  return `${distance > 1e-6 ? Math.min(99, rounded) : rounded}%`;
}

/** Three digits that matter. */
export function distanceText(distance) {
  if (distance === 0) return "0";
  return distance >= 100 ? distance.toFixed(0) : distance >= 10 ? distance.toFixed(1) : distance.toFixed(distance >= 0.1 ? 2 : 3);
}

/** The bar of one hit, with a notch at the threshold. */
export function scoreBar(scale, distance) {
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", { class: "bar-fill" }));
  bar.style.setProperty("--share", scale.share(distance).toFixed(4));
  if (scale.threshold > 0) {
    bar.append(h("span", { class: "bar-notch" }));
    bar.style.setProperty("--notch", scale.share(scale.threshold).toFixed(4));
  }
  const exact = distanceText(distance);
  const words = scale.name
    ? [sr(`${scale.name} `), h("b", {}, scale.text(distance)), sr(scale.of), h("small", {}, sr(", distance "), exact)]
    : [sr("distance "), h("b", {}, exact)];
  return h("span", { class: "score" }, bar, h("span", { class: "score-words" }, ...words));
}

const sr = (text) => h("span", { class: "sr" }, text);
