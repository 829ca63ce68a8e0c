// An answer as a page: what came of it in a word, then the neighbours.

import { card } from "./cards.js";
import { h, icon } from "./dom.js";
import { distanceText, scaleOf } from "./score.js";
import { plural } from "./words.js";

/** { kind, title, text } of an answer: match, none, open (no threshold to judge by) or empty. */
export function verdictOf(answer) {
  const { hits, threshold } = answer;
  if (!hits.length) return { kind: "empty", title: "Nothing to show", text: "No item of the catalogue passes the filter." };
  if (threshold == null) return { kind: "open", title: `${plural(hits.length, "nearest item")}`, text: "" };
  const matches = hits.filter((hit) => hit.match).length;
  const limit = distanceText(threshold);
  if (matches) {
    const all = matches === hits.length && hits.length > 1 ? "All are" : matches === 1 ? "It is" : "They are";
    return { kind: "match", title: plural(matches, "match", "matches"), text: `${all} within the distance of ${limit} that counts as a match.` };
  }
  const [nearest, within] = apart(hits[0].distance, threshold);
  return {
    kind: "none",
    title: "No match",
    text: `Nothing in the catalogue is close enough: the nearest item is at a distance of ${nearest}, and a match is within ${within}.`,
  };
}

// Both with as many digits as it takes to see that they differ.
function apart(...distances) {
  const short = distances.map(distanceText);
  if (short[0] !== short[1]) return short;
  const digits = [4, 5, 6, 9, 12].find((count) => distances[0].toPrecision(count) !== distances[1].toPrecision(count)) ?? 17;
  return distances.map((distance) => distance.toPrecision(digits));
}

const SIGNS = { match: "check", none: "none", open: "like", empty: "filter" };

export function verdict(answer, level = "h2") {
  const { kind, title, text } = verdictOf(answer);
  return h(
    "div",
    { class: `verdict ${kind}` },
    h("span", { class: "verdict-sign" }, icon(SIGNS[kind])),
    h("div", {}, h(level, { class: "verdict-title", tabindex: "-1" }, title), text && h("p", {}, text)),
    level === "h2" && h("p", { class: "took" }, `version ${answer.version}`, h("span", {}, `${Math.max(1, Math.round(answer.took_ms))} ms`)),
  );
}

/**
 * The neighbours of one answer: those that match, then, in grey, those that do not.
 *
 * @param link     (item) => address of the search for more like it
 * @param details  (items, number) => shows one of them in full
 */
export function neighbours(answer, info, { link, details }) {
  const scale = scaleOf(info, answer);
  const { hits } = answer;
  const show = (hit) => card(hit, { href: link(hit), scale, onDetails: () => details(hits, hits.indexOf(hit), scale) });
  const near = hits.filter((hit) => hit.match !== false);
  const far = hits.filter((hit) => hit.match === false);
  const heading = near.length ? "Further away" : "The nearest items";
  return [
    near.length > 0 && h("ol", { class: "grid", "aria-label": scale.threshold == null ? "Nearest items" : "Matches" }, near.map(show)),
    far.length > 0 && h("h3", { class: "divider" }, h("span", {}, heading)),
    far.length > 0 && h("ol", { class: "grid", "aria-label": heading }, far.map(show)),
  ].filter(Boolean);
}
