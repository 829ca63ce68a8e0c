// The service's HTTP API, and its errors (application/problem+json) as exceptions.

const KEY = "tfdml-api-key";

/** What went wrong, as it is told to a person. `status` is 0 if there was no answer at all. */
export class Problem extends Error {
  constructor(status, title, detail = "", more = {}) {
    super(detail || title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryAfter = more.retryAfter ?? null;
    this.requestId = more.requestId ?? null;
    this.position = more.position ?? null;
  }

  /** Whether the same request may succeed in a moment. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

// Without a key in the tab, one is asked for; nothing is written to the disk.
export const apiKey = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Where a path of the API is, also if a proxy serves the page below a path of its own. */
export const place = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

export const info = (signal) => getJson("v1/info", {}, signal);
export const versions = (signal) => getJson("v1/versions", {}, signal);
export const item = (id, version, signal) => getJson(`v1/items/${idPath(id)}`, { version }, signal);
export const items = (options, signal) => getJson("v1/items", options, signal);

export async function searchImage(image, { k, filter, version }, signal) {
  const path = withWords("v1/search/image", { k, filter, version });
  return answerOf(await send(path, { method: "POST", body: image, headers: { "Content-Type": image.type }, signal }));
}

export async function searchItem(id, { k, filter, version }, signal) {
  const body = JSON.stringify({ id, k, ...(filter && { filter }), ...(version != null && { version }) });
  return answerOf(await send("v1/search/item", { method: "POST", body, headers: { "Content-Type": "application/json" }, signal }));
}

/** A picture as a blob: for services that ask for a key, which an <img> cannot send. */
export async function picture(path, signal) {
  return (await send(path, { signal })).blob();
}

const answerOf = async (response) => parsed(await response.text());

/** JSON whose whole numbers beyond 2^53 stay what they are, as BigInt, where the browser tells how they were written. */
export const parsed = (text) =>
  JSON.parse(text, (_, value, written) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(written?.source ?? "") ? BigInt(written.source) : value,
  );

async function getJson(path, words, signal) {
  return answerOf(await send(withWords(path, words), { signal }));
}

async function send(path, options) {
  const key = apiKey.get();
  const headers = { Accept: "application/json", ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(place(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

function unreachable() {
  return navigator.onLine
    ? new Problem(0, "The service does not answer", "It may be starting, or the network is down.")
    : new Problem(0, "You are offline", "The search goes on as soon as there is a connection.");
}

async function problemOf(response) {
  let told = {};
  try {
    told = await response.json();
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  const wait = Number(response.headers.get("Retry-After"));
  return new Problem(response.status, text(told.title) || `Error ${response.status}`, text(told.detail), {
    retryAfter: response.headers.has("Retry-After") && Number.isFinite(wait) ? wait : null,
    requestId: text(told.request_id) || response.headers.get("X-Request-ID"),
    position: Number.isInteger(told.position) ? told.position : null,
  });
}

// FastAPI's own validation errors carry a list.
function text(value) {
  if (typeof value === "string") return value;
  return Array.isArray(value) ? value.map((entry) => entry?.msg ?? "").filter(Boolean).join("; ") : "";
}

function withWords(path, words) {
  const given = Object.entries(words).filter(([, value]) => value != null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

const idPath = (id) => id.split("/").map(encodeURIComponent).join("/");
