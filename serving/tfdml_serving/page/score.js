// A distance as something that can be read at a glance.

import { h } from "./dom.js";

/**
 * How an answer's distances are shown.
 *
 * Cosine distances, and Euclidean ones between vectors of length 1 (where cos = 1 - d²/2), become a similarity from 0 to 100%.
 * Others have no end: their bar is empty at twice the threshold, or a little beyond the farthest hit where there is none.
 */
export function scaleOf(info, answer) {
  const { threshold } = answer;
  const farthest = Math.max(0, ...answer.hits.map((hit) => hit.distance));
  let similarity = null;
  if (answer.metric === "cosine") similarity = (distance) => 1 - distance;
  else if (info.normalised) similarity = (distance) => 1 - (distance * distance) / 2;
  const end = threshold ? 2 * threshold : 1.25 * farthest || 1;
  const share = similarity ?? ((distance) => 1 - distance / end);
  return { similarity, threshold, share: (distance) => Math.min(1, Math.max(0, share(distance))) };
}

/** "97%", where there is a similarity; else the distance. */
export function scoreText(scale, distance) {
  if (!scale.similarity) return distanceText(distance);
  const percent = Math.round(100 * Math.max(0, scale.similarity(distance)));
  return `${distance > 1e-6 ? Math.min(99, percent) : percent}%`;
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
  if (scale.threshold != null) {
    bar.append(h("span", { class: "bar-notch" }));
    bar.style.setProperty("--notch", scale.share(scale.threshold).toFixed(4));
  }
  const words = scale.similarity
    ? [h("span", { class: "sr" }, "similarity "), h("b", {}, scoreText(scale, distance)), h("small", {}, h("span", { class: "sr" }, ", distance "), distanceText(distance))]
    : [h("span", { class: "sr" }, "distance "), h("b", {}, distanceText(distance))];
  return h("span", { class: "score" }, bar, h("span", { class: "score-words" }, ...words));
}
