// The same query put to two versions, side by side.

import { verdict } from "./answers.js";
import { card } from "./cards.js";
import { h } from "./dom.js";
import { scaleOf } from "./score.js";
import { plural } from "./words.js";

/**
 * What became of each hit between two lists of ids.
 *
 * @returns { before, after, counts }: for each id of the older list "gone", "moved" or "same"; for each of the newer "new",
 *          "moved" (with how many places up) or "same"; and how many there are of each.
 */
export function differences(older, newer) {
  const was = new Map(older.map((id, rank) => [id, rank]));
  const is = new Map(newer.map((id, rank) => [id, rank]));
  const before = older.map((id, rank) => ({ kind: !is.has(id) ? "gone" : is.get(id) === rank ? "same" : "moved", up: 0 }));
  const after = newer.map((id, rank) => {
    if (!was.has(id)) return { kind: "new", up: 0 };
    return { kind: was.get(id) === rank ? "same" : "moved", up: was.get(id) - rank };
  });
  const count = (list, kind) => list.filter((change) => change.kind === kind).length;
  const counts = { same: count(after, "same"), moved: count(after, "moved"), new: count(after, "new"), gone: count(before, "gone") };
  return { before, after, counts };
}

/** One column of the comparison: { title, answer, problem }; the answer may be missing. */
export function comparison(before, after, info, actions) {
  const both = before.answer && after.answer;
  const ids = (side) => side.answer.hits.map((hit) => hit.id);
  const changes = both ? differences(ids(before), ids(after)) : null;
  return [
    changes && summary(before, after, changes.counts),
    h(
      "div",
      { class: "sides" },
      column(before, changes?.before, info, actions),
      column(after, changes?.after, info, actions),
    ),
  ].filter(Boolean);
}

function summary(before, after, counts) {
  const parts = [
    counts.same && `${counts.same} in the same place`,
    counts.moved && `${counts.moved} moved`,
    counts.new && `${counts.new} new`,
    counts.gone && `${counts.gone} gone`,
  ].filter(Boolean);
  const unchanged = !counts.moved && !counts.new && !counts.gone;
  return h(
    "div",
    { class: "change" },
    h("h2", { class: "verdict-title", tabindex: "-1" }, `Version ${before.version} against ${after.version}`),
    h("p", {}, unchanged ? `The answers are the same: ${plural(counts.same, "item")} in the same places.` : `${parts.join(", ")}.`),
  );
}

function column(side, changes, info, { link, details }) {
  const heading = h("h3", { class: "side-title" }, `Version ${side.version}`, side.note && h("small", {}, side.note));
  if (!side.answer) return h("section", { class: "side" }, heading, side.problem);
  const scale = scaleOf(info, side.answer);
  const { hits } = side.answer;
  const row = (hit, rank) =>
    card(hit, { href: link(hit, side.version), scale, badge: badge(changes?.[rank]), onDetails: () => details(hits, rank, scale) });
  return h("section", { class: "side" }, heading, verdict(side.answer, "h4"), h("ol", { class: "rows" }, hits.map(row)));
}

function badge(change) {
  if (!change || change.kind === "same" || (change.kind === "moved" && !change.up)) return null;
  if (change.kind !== "moved") return h("span", { class: `badge ${change.kind}` }, change.kind === "new" ? "New" : "Gone");
  const places = plural(Math.abs(change.up), "place");
  return h(
    "span",
    { class: "badge moved" },
    h("span", { "aria-hidden": "true" }, `${change.up > 0 ? "↑" : "↓"} ${Math.abs(change.up)}`),
    h("span", { class: "sr" }, `moved ${change.up > 0 ? "up" : "down"} ${places}`),
  );
}
