// controls.js - fields bound to the state: each has a label, shows the state and changes it.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function field(id, label, ...inputs) {
  const wrap = element("div", { class: "field" }, element("label", { for: id }, label), ...inputs);
  return wrap;
}

/** A slider and a number; log: the slider moves in eighths of powers of two. */
export function slider(store, { key, label, min, max, log = false, shown = () => true }) {
  const id = `f-${key}`;
  const number = element("input", {
    id,
    type: "number",
    min: String(min),
    max: String(max),
    step: "1",
  });
  const range = element("input", {
    type: "range",
    "aria-label": `${label}, slider`,
    step: log ? "0.125" : "1",
    min: String(log ? Math.log2(min) : min),
    max: String(log ? Math.log2(max) : max),
  });
  const wrap = field(id, label, element("div", { class: "pair" }, range, number));
  const change = (value) => store.set({ [key]: Math.min(max, Math.max(min, Math.round(value))) });
  range.addEventListener("input", () =>
    change(log ? 2 ** Number(range.value) : Number(range.value)),
  );
  number.addEventListener("change", () =>
    number.value === "" ? show(store.state) : change(Number(number.value)),
  );
  function show(state) {
    wrap.hidden = !shown(state);
    number.value = String(state[key]);
    range.value = String(log ? Math.log2(Math.max(min, state[key])) : state[key]);
    range.setAttribute("aria-valuetext", state[key].toLocaleString("en"));
  }
  store.subscribe(show);
  show(store.state);
  return wrap;
}

export function choice(store, { key, label, values, shown = () => true }) {
  const id = `f-${key}`;
  const select = element("select", { id });
  const wrap = field(id, label, select);
  select.addEventListener("change", () => store.set({ [key]: select.value }));
  function show(state) {
    const list = typeof values === "function" ? values(state) : values;
    if (select.options.length !== list.length)
      select.replaceChildren(...list.map((value) => element("option", { value }, value)));
    wrap.hidden = !shown(state);
    select.value = state[key];
  }
  store.subscribe(show);
  show(store.state);
  return wrap;
}

export function check(store, { key, label, shown = () => true }) {
  const id = `f-${key}`;
  const box = element("input", { id, type: "checkbox" });
  const wrap = element("div", { class: "field check" }, box, element("label", { for: id }, label));
  box.addEventListener("change", () => store.set({ [key]: box.checked }));
  function show(state) {
    wrap.hidden = !shown(state);
    box.checked = state[key];
  }
  store.subscribe(show);
  show(store.state);
  return wrap;
}

export function text(store, { key, label, shown = () => true }) {
  const id = `f-${key}`;
  const input = element("input", { id, type: "text", maxlength: "400" });
  const wrap = field(id, label, input);
  input.addEventListener("input", () => store.set({ [key]: input.value }));
  function show(state) {
    wrap.hidden = !shown(state);
    if (input.value !== state[key]) input.value = state[key];
  }
  store.subscribe(show);
  show(store.state);
  return wrap;
}

/** A config.json: pasted, dropped or opened. */
export function configField(store, { key, shown }) {
  const id = `f-${key}`;
  const area = element("textarea", { id, spellcheck: "false", placeholder: '{"model_type": ...' });
  const file = element("input", {
    type: "file",
    accept: ".json,application/json",
    "aria-label": "Open a config.json",
  });
  const wrap = field(id, "config.json: paste it, or drop the file", area, file);
  const take = async (blob) => blob && store.set({ [key]: await blob.text() });
  area.addEventListener("input", () => store.set({ [key]: area.value }));
  file.addEventListener("change", () => take(file.files[0]));
  for (const name of ["dragenter", "dragover"])
    area.addEventListener(name, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  function show(state) {
    wrap.hidden = !shown(state);
    if (area.value !== state[key]) area.value = state[key];
  }
  store.subscribe(show);
  show(store.state);
  return wrap;
}
