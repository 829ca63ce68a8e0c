// How many results, of which version, against which other.

import { find, h } from "./dom.js";

const CHOICES = [5, 10, 20, 50, 100, 200];

/** Fills the selectors for what the service offers and the address says. */
export function fillTools(route, service, versions) {
  const counts = new Set([...CHOICES.filter((k) => k <= service.max_k), Math.min(route.k, service.max_k) || 1]);
  fill("#k", [...counts].sort((a, b) => a - b).map((k) => [k, String(k)]), Math.min(route.k, service.max_k));

  const names = versions.map(({ version }) => version).sort((a, b) => b - a);
  const current = versions.find(({ state }) => state === "current")?.version ?? service.version;
  const note = (version) => (version === current ? `${version} (current)` : String(version));
  const asked = route.version ?? current;
  const known = names.includes(asked) ? names : [asked, ...names];
  fill("#version", known.map((version) => [version === current ? "" : version, note(version)]), route.version === current ? "" : (route.version ?? ""));

  const others = known.filter((version) => version !== asked);
  if (route.compare != null && route.compare !== asked && !others.includes(route.compare)) others.push(route.compare);
  fill("#compare", [["", "nothing"], ...others.map((version) => [version, note(version)])], route.compare ?? "");
}

function fill(selector, options, chosen) {
  const select = find(selector);
  const old = [...select.options].map(({ value, text }) => [value, text]);
  if (JSON.stringify(old) === JSON.stringify(options.map(([value, text]) => [String(value), text]))) {
    select.value = String(chosen); // as it is, so that an open list stays open
    return;
  }
  select.replaceChildren(...options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)));
}
