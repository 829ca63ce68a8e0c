// The page: what the address asks for is searched and shown; everything a person does becomes an address.

import * as api from "./api.js";
import { neighbours, verdict, verdictOf } from "./answers.js";
import { moveWithArrows, skeleton } from "./cards.js";
import { browse, itemsPage } from "./catalogue.js";
import { comparison } from "./compare.js";
import { showDetails } from "./details.js";
import { fillIcons, find, h } from "./dom.js";
import { condition, FilterBox } from "./filter.js";
import { askForKey, offerKey } from "./key.js";
import { clearNotice, sayProblem, sayWords } from "./notices.js";
import { takePictures } from "./pickers.js";
import { NotAPicture, prepare } from "./photo.js";
import { showAsked } from "./query.js";
import { hasQuery, readRoute, writeRoute } from "./route.js";
import { fillTools } from "./tools.js";
import { plural, wordsOf } from "./words.js";

const MOST_PHOTOS = 12;
const MOST_KEPT = 20;
const PATIENCE = 6;

const photos = new Map();
const entries = new Map();
let service = null;
let versions = [];
let running = new AbortController();
let entry = 0;
let shown = null;

const filterBox = new FilterBox({
  input: find("#filter"),
  options: find("#filter-options"),
  error: find("#filter-error"),
  clear: find("#filter-clear"),
  apply: (filter) => go({ ...readRoute(location.hash), filter }, { again: true }),
});

start();

function start() {
  history.scrollRestoration = "manual";
  fillIcons();
  takePictures(searchPhoto, (text) => sayWords("warning", text));
  moveWithArrows(find("#results"));
  find("#tools").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["k", "version", "compare"]) {
    find(`#${name}`).addEventListener("change", ({ target }) => {
      go({ ...readRoute(location.hash), [name]: target.value === "" ? null : Number(target.value) });
    });
  }
  find("#skip").addEventListener("click", (event) => {
    event.preventDefault();
    find("#main").focus();
  });
  find("#docs").href = api.place("docs");
  offerKey(open);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => show());
  addEventListener("scroll", () => entries.has(entry) && (entries.get(entry).scroll = scrollY), { passive: true });
  open();
}

function onKey(event) {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    find("#filter").focus();
    find("#filter").select();
  }
}

/** Makes an address of a route and shows it; `again` also where it is the present one. */
function go(route, { again = false } = {}) {
  const hash = writeRoute(route);
  if (hash !== (location.hash || "#")) location.hash = hash;
  else if (again) show({ fresh: true });
}

async function open() {
  await attempt(async (signal) => {
    if (!service) find("#results").replaceChildren(skeleton(12));
    await readService(signal);
    await show({ fresh: true });
  });
}

async function readService(signal) {
  const before = service;
  service = await api.info(signal);
  try {
    const known = await api.versions(signal);
    versions = known.versions.filter(({ state }) => state === "current" || state === "held");
  } catch (problem) {
    if (!(problem instanceof api.Problem) || problem.status === 401) throw problem;
    versions = [];
  }
  if (before) showSelectors(readRoute(location.hash));
  find("#model").textContent = service.model;
  find("#facts").replaceChildren(h("span", {}, plural(service.items, "item")), h("span", {}, `version ${service.version}`));
  find("#key-button").hidden = !service.auth;
  filterBox.setFields(service.fields);
}

/** Shows what the address asks for: from memory where one has been before, else from the service. */
async function show({ fresh = false } = {}) {
  if (!service) return;
  const route = readRoute(location.hash);
  const before = entries.get(entry);
  const known = history.state?.entry;
  if (known == null) history.replaceState({ entry: (entry = Math.max(0, ...entries.keys()) + 1) }, "");
  else entry = known;
  if (before) before.focus = document.activeElement?.closest?.(".card")?.dataset.id ?? before.focus;
  showSelectors(route);
  filterBox.show(route.filter);
  filterBox.complain(null);
  clearNotice();
  find("#details").close();
  const kept = fresh ? null : entries.get(entry);
  if (kept?.render) {
    running.abort();
    find("#main").setAttribute("aria-busy", "false");
    kept.render();
    goBackTo(kept);
    return;
  }
  entries.set(entry, { scroll: 0 });
  await attempt((signal) => (hasQuery(route) ? search(route, signal) : openCatalogue(route, signal)));
}

function goBackTo({ scroll, focus }) {
  const card = focus != null && [...document.querySelectorAll("#results .card")].find((each) => each.dataset.id === focus);
  if (card) card.querySelector(".card-link").focus({ preventScroll: true });
  scrollTo({ top: scroll, behavior: "instant" });
}

/** Runs a task, the only one at a time; says what goes wrong, and tries again where that may help. */
async function attempt(task, tries = 0) {
  running.abort();
  const mine = (running = new AbortController());
  find("#main").setAttribute("aria-busy", "true");
  say("");
  try {
    await task(mine.signal);
    if (mine === running) find("#main").setAttribute("aria-busy", "false");
  } catch (problem) {
    if (mine !== running || problem.name === "AbortError") return;
    find("#main").setAttribute("aria-busy", "false");
    failed(problem, (automatic) => attempt(task, automatic ? tries + 1 : 0), tries);
  }
}

function failed(problem, again, tries) {
  if (!(problem instanceof api.Problem)) {
    console.error(problem);
    problem = new api.Problem(-1, "Something on this page went wrong", String(problem.message ?? problem));
  }
  if (problem.status === 401) {
    askForKey(problem, open);
    return;
  }
  if (problem.status === 400 && readRoute(location.hash).filter && (problem.position != null || /filter/i.test(problem.title))) {
    filterBox.complain(problem);
    if (find("#results .blank")) find("#results").replaceChildren();
    return;
  }
  find("#results").replaceChildren();
  shown = null;
  sayProblem(problem, again, problem.passing && tries < PATIENCE);
}

async function openCatalogue(route, signal) {
  setView("start");
  const words = { filter: route.filter, version: route.version };
  const about = { service, actions: actions(route), learn: (items) => filterBox.learn(items), failed: (problem) => failed(problem, () => {}, PATIENCE) };
  const results = find("#results");
  if (shown || !results.querySelector(".card")) results.replaceChildren(skeleton(12));
  shown = null;
  const page = await itemsPage(words, null, signal);
  filterBox.learn(page.items);
  const content = browse(page, words, about);
  remember(signal, () => {
    setView("start");
    nameTab(route.filter);
    shown = null;
    results.replaceChildren(content);
  });
  say(route.filter ? `${plural(page.items.length, "item")}${page.next ? " and more" : ""}` : `Catalogue of ${plural(service.items, "item")}`);
}

async function search(route, signal) {
  const photo = route.photo == null ? null : photos.get(route.photo);
  if (route.photo != null && !photo) {
    await openCatalogue(route, signal);
    sayWords("info", "The photo of this search is no longer in this tab: it is kept nowhere else. Choose it again to repeat the search.");
    return;
  }
  const results = find("#results");
  const same = (query) => query != null && query.item === route.item && query.photo === route.photo;
  const compared = route.compare != null && route.compare !== (route.version ?? service.version);
  const act = actions(route);
  const unknown = { id: route.item, fields: {}, thumbnail: null };
  // The same query with another filter or version keeps its answer in sight until there is a new one.
  if (!same(shown)) {
    setView(compared ? "compare" : "answer");
    showAsked({ photo, item: unknown }, null);
    results.replaceChildren(skeleton(Math.min(route.k, 12)));
    scrollTo({ top: 0, behavior: "instant" });
  }

  const k = Math.min(Math.max(1, route.k), service.max_k);
  const ask = (version) => {
    const words = { k, filter: route.filter, version };
    return photo ? api.searchImage(photo.blob, words, signal) : api.searchItem(route.item, words, signal);
  };
  const subject = photo ? Promise.resolve(null) : api.item(route.item, route.version, signal).catch(() => unknown);
  subject.then((item) => item && !same(shown) && !signal.aborted && showAsked({ item }, act));
  const sides = await (compared ? askBoth(route, ask) : ask(route.version).then((answer) => [{ version: answer.version, answer }]));
  const item = await subject;
  const content = compared ? comparison(...sides, service, act) : [verdict(sides[0].answer), ...neighbours(sides[0].answer, service, act)];
  for (const side of sides) filterBox.learn(side.answer?.hits ?? []);
  remember(signal, () => {
    setView(compared ? "compare" : "answer");
    showAsked({ photo, item }, act);
    results.replaceChildren(...content);
    shown = { item: route.item, photo: route.photo };
    nameTab(photo ? "Your photo" : `Like ${wordsOf(item).title}`);
  });
  results.querySelector(".verdict-title")?.focus({ preventScroll: true });
  say(sides.filter((side) => side.answer).map((side) => spoken(side, compared)).join(" "));
  // A version may have come or gone since the page was opened.
  readService(signal).catch(() => {});
}

/** Both versions' answers, the older first; a version that cannot answer does not take the other's answer away. */
async function askBoth(route, ask) {
  const asked = [route.version ?? service.version, route.compare].sort((a, b) => a - b);
  const settled = await Promise.allSettled(asked.map(ask));
  if (settled.every(({ status }) => status === "rejected")) throw settled[0].reason;
  return settled.map(({ value, reason }, i) => {
    if (reason && (reason.name === "AbortError" || reason.status === 401 || reason.position != null)) throw reason;
    const note = asked[i] === service.version ? "current" : "";
    return { version: asked[i], note, answer: value, problem: reason && h("p", { class: "side-problem" }, reason.detail || reason.title) };
  });
}

function spoken({ version, answer }, compared) {
  const { title, text } = verdictOf(answer);
  return `${compared ? `Version ${version}: ` : ""}${title}. ${text} ${plural(answer.hits.length, "result")}.`;
}

function actions(route) {
  const link = (item, version) => writeRoute({ ...route, photo: null, item: item.id, ...(route.compare == null && version != null && { version }) });
  const filterBy = (name, value) => {
    const more = condition(name, value);
    go({ ...route, filter: route.filter ? `(${route.filter}) and ${more}` : more });
  };
  return { link, filterBy, details: (items, number, scale) => showDetails(items, number, { link, filterBy, scale }) };
}

async function searchPhoto(file) {
  if (!service) return;
  clearNotice();
  let photo;
  try {
    photo = await prepare(file, service.image);
  } catch (error) {
    sayWords("warning", error instanceof NotAPicture ? error.message : "This picture cannot be read.");
    return;
  }
  photo.url = URL.createObjectURL(photo.blob);
  const key = String(Math.max(0, ...[...photos.keys()].map(Number)) + 1);
  photos.set(key, photo);
  for (const [old, { url }] of [...photos].slice(0, Math.max(0, photos.size - MOST_PHOTOS))) {
    photos.delete(old);
    URL.revokeObjectURL(url);
  }
  go({ ...readRoute(location.hash), photo: key, item: null });
}

function remember(signal, render) {
  // Whoever has gone elsewhere meanwhile must not find this answer there.
  signal.throwIfAborted();
  render();
  const kept = entries.get(entry);
  if (kept) kept.render = render;
  const old = [...entries.keys()].filter((key) => entries.get(key).render && key !== entry);
  for (const key of old.slice(0, Math.max(0, old.length - MOST_KEPT))) delete entries.get(key).render;
}

function setView(view) {
  document.body.dataset.view = view;
  find("#hero").hidden = view !== "start";
  find("#asked").hidden = view === "start";
  showSelectors(readRoute(location.hash));
}

function showSelectors(route) {
  const start = document.body.dataset.view === "start";
  fillTools(route, service, versions);
  find("#k-box").hidden = start;
  for (const name of ["version", "compare"]) find(`#${name}-box`).hidden = start || versions.length < 2;
}

function nameTab(what) {
  document.title = `${what ? `${what} · ` : ""}${service.model} · visual search`;
}

function say(text) {
  find("#status").textContent = text;
}
