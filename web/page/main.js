// main.js - loads the module, then the tabs.
import { load } from "./lib/index.js";
import { startPlayground } from "./playground.js";
import { startSizing } from "./sizing.js";
import { Store } from "./state.js";

const tabs = ["size", "play"];
const at = (id) => document.getElementById(id);

function showTab(name) {
  for (const tab of tabs) {
    const button = at(`tab-${tab}`),
      on = tab === name;
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
    at(tab).hidden = !on;
  }
}

function startTabs(store) {
  for (const tab of tabs) {
    at(`tab-${tab}`).addEventListener("click", () => store.set({ tab }));
    at(`tab-${tab}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      store.set({ tab: next });
      at(`tab-${next}`).focus();
      event.preventDefault();
    });
  }
  const show = () => showTab(tabs.includes(store.state.tab) ? store.state.tab : tabs[0]);
  store.subscribe(show);
  show();
}

try {
  const inside = at("wasm"); // the page as one file
  const bytes = inside && Uint8Array.from(atob(inside.textContent), (c) => c.charCodeAt(0));
  const qkv = await load(bytes ?? undefined);
  const store = new Store();
  startTabs(store);
  startSizing(qkv, store);
  startPlayground(qkv, store);
  document.body.dataset.ready = qkv.version;
} catch (error) {
  at("failure").hidden = false;
  at("failure").textContent = `The page could not start: ${error.message}`;
  throw error;
}
