// What went wrong, or is worth knowing, above the results.

import { find, h, icon } from "./dom.js";

const LONGEST_WAIT = 60;
let timer = null;
let listener = null;

export function clearNotice() {
  clearInterval(timer);
  if (listener) removeEventListener("online", listener);
  listener = null;
  find("#notice").replaceChildren();
}

/** A sentence: "info" or "warning". */
export function sayWords(kind, text) {
  clearNotice();
  const close = h("button", { type: "button", class: "round", "aria-label": "Close this message", onclick: clearNotice }, icon("close"));
  const role = kind === "warning" ? "alert" : "status";
  find("#notice").append(h("div", { class: `notice ${kind}`, role }, icon(kind === "warning" ? "warning" : "info"), h("p", {}, text), close));
}

/**
 * A problem of the service, with a way to try again.
 *
 * @param again      tries again; told whether a person asked for it or the clock did
 * @param automatic  whether to try again without being asked, after as long as the service said
 */
export function sayProblem(problem, again, automatic) {
  clearNotice();
  const retry = (byClock) => {
    clearNotice();
    again(byClock);
  };
  const button = problem.passing && h("button", { type: "button", class: "quiet", onclick: () => retry(false) }, "Try now");
  const waiting = h("span", { class: "waiting" });
  find("#notice").append(
    h(
      "div",
      { class: "notice problem", role: "alert" },
      icon(problem.status === 0 ? "offline" : "warning"),
      h("div", {}, h("h2", {}, headline(problem)), h("p", {}, advice(problem)), problem.requestId && h("p", { class: "request" }, `Request ${problem.requestId}`)),
      button && h("div", { class: "again" }, button, waiting),
    ),
  );
  if (!problem.passing) return;
  listener = () => retry(true);
  addEventListener("online", listener);
  if (!automatic) return;
  let left = Math.min(LONGEST_WAIT, Math.max(1, Math.ceil(problem.retryAfter ?? 3)));
  const tell = () => (waiting.textContent = `Trying again in ${left} s`);
  tell();
  timer = setInterval(() => (--left > 0 ? tell() : retry(true)), 1000);
}

const HEADLINES = {
  403: "This is not allowed",
  404: "It is not there",
  413: "The picture is too large",
  415: "This kind of file is not taken",
  422: "The picture cannot be read",
  429: "Too many searches at once",
  503: "The service is busy or starting",
};

const headline = (problem) => HEADLINES[problem.status] ?? problem.title;

function advice({ status, title, detail }) {
  if (status === 0) return detail;
  const said = detail || title;
  return status === 415 || status === 422 ? `${said} A JPEG or PNG photo always works.` : said;
}
