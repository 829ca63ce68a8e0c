// The API key, where the service asks for one.

import { apiKey } from "./api.js";
import { find } from "./dom.js";

const parts = () => ({ dialog: find("#ask-key"), input: find("#key"), error: find("#key-error"), forget: find("#key-forget") });

/** Asks for a key, and says so if the last one was refused. */
export function askForKey(problem) {
  const { dialog, input, error, forget } = parts();
  const refused = problem != null && apiKey.get() != null;
  if (refused) apiKey.set(null);
  input.value = "";
  error.hidden = !refused;
  error.textContent = refused ? "The service does not know this key." : "";
  forget.hidden = apiKey.get() == null;
  if (!dialog.open) dialog.showModal();
  input.focus();
}

/** Lets a person enter, change and forget the key; `changed` is called when it is another one. */
export function offerKey(changed) {
  const { dialog, input, forget } = parts();
  find("#key-button").addEventListener("click", () => askForKey(null));
  find("#key-form").addEventListener("submit", () => {
    apiKey.set(input.value.trim());
    input.value = "";
    changed();
  });
  forget.addEventListener("click", () => {
    apiKey.set(null);
    dialog.close();
    changed();
  });
}
