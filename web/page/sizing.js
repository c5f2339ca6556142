// sizing.js - the tab of sizes: the state becomes a question, its answer the page.
import { list, pointsOf, showSteps, showSummary, showVariants } from "./answer.js";
import { Chart, curvesOf, roofOf } from "./charts.js";
import { choice, check, configField, element, slider } from "./controls.js";
import { toJson } from "./lib/index.js";
import { presets } from "./presets.js";
import { stripOf } from "./strip.js";
import { bytes } from "./words.js";

const GIB = 2 ** 30;
const VARIANTS = ["as it is", "MHA", "GQA", "MQA", "MLA"];
const SOURCES = ["preset", "config.json", "numbers"];
const CONTEXTS = Array.from({ length: 15 }, (_, i) => 2 ** (7 + i));
const at = (id) => document.getElementById(id);

/** [config, options.model] of the state. */
function modelOf(state) {
  if (state.source === "config.json") return [state.config, undefined];
  if (state.source === "preset")
    return [presets[state.preset] ?? presets["llama-3.1-8b"], undefined];
  const { layers, dModel, heads, headDim, window, fullEvery } = state;
  const model = { layers, dModel, heads, headDim };
  if (state.mla) Object.assign(model, { latent: state.latent, ropeDim: state.ropeDim });
  else model.kvHeads = state.kvHeads;
  if (window > 0) Object.assign(model, { window, fullEvery });
  return [null, model];
}

function variantOf(name, state) {
  return {
    "as it is": null,
    MHA: "mha",
    GQA: `gqa:${state.groups}`,
    MQA: "mqa",
    MLA: `mla:${state.latentWidth}`,
  }[name];
}

function optionsOf(state, model) {
  return {
    model,
    context: state.context,
    batch: state.batch,
    kv: state.kv,
    memory: state.memory * GIB,
    machine: state.machine,
    ranks: state.ranks,
    variant: variantOf(state.variant, state),
    ...(state.weightBits === "auto" ? {} : { weightBits: Number(state.weightBits) }),
  };
}

// ---- export ----

function save(name, type, text) {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([text], { type })),
    download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** path,value lines of a report. */
export function csvOf(report) {
  const lines = ["path,value"];
  const walk = (value, path) => {
    if (value !== null && typeof value === "object")
      for (const [key, inner] of Object.entries(value)) walk(inner, path ? `${path}.${key}` : key);
    else
      lines.push(
        `${path},${/[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? "")}`,
      );
  };
  walk(report, "");
  return `${lines.join("\n")}\n`;
}

function exported(report) {
  const { layers, ...rest } = report;
  return rest;
}

// ---- the tab ----

function controls(qkv, store) {
  const from = (source) => (state) => state.source === source;
  const numbers = from("numbers");
  const of = (test) => (state) => numbers(state) && test(state);
  return [
    choice(store, { key: "source", label: "Model from", values: SOURCES }),
    choice(store, {
      key: "preset",
      label: "Preset",
      values: Object.keys(presets),
      shown: from("preset"),
    }),
    configField(store, { key: "config", shown: from("config.json") }),
    slider(store, { key: "layers", label: "Layers", min: 1, max: 200, shown: numbers }),
    slider(store, {
      key: "dModel",
      label: "Width of hidden states",
      min: 64,
      max: 32768,
      log: true,
      shown: numbers,
    }),
    slider(store, { key: "heads", label: "Query heads", min: 1, max: 256, shown: numbers }),
    check(store, { key: "mla", label: "MLA: one latent for all heads", shown: numbers }),
    slider(store, {
      key: "kvHeads",
      label: "Key/value heads (groups)",
      min: 1,
      max: 256,
      shown: of((s) => !s.mla),
    }),
    slider(store, {
      key: "headDim",
      label: "Channels of a head",
      min: 8,
      max: 512,
      shown: numbers,
    }),
    slider(store, {
      key: "latent",
      label: "Width of the latent",
      min: 16,
      max: 1024,
      shown: of((s) => s.mla),
    }),
    slider(store, {
      key: "ropeDim",
      label: "Rotary channels beside it",
      min: 0,
      max: 256,
      shown: of((s) => s.mla),
    }),
    slider(store, {
      key: "window",
      label: "Window, tokens (0: none)",
      min: 0,
      max: 32768,
      shown: numbers,
    }),
    slider(store, {
      key: "fullEvery",
      label: "Every n-th layer sees all (0: none)",
      min: 0,
      max: 32,
      shown: of((s) => s.window > 0),
    }),
    choice(store, { key: "variant", label: "Attention", values: VARIANTS }),
    slider(store, { key: "groups", label: "Groups of GQA", min: 1, max: 128 }),
    slider(store, { key: "latentWidth", label: "Latent of MLA", min: 16, max: 1024 }),
    slider(store, { key: "context", label: "Context, tokens", min: 1, max: 2097152, log: true }),
    slider(store, { key: "batch", label: "Users at once", min: 1, max: 65535, log: true }),
    choice(store, { key: "kv", label: "Format of keys and values", values: qkv.formats }),
    choice(store, {
      key: "weightBits",
      label: "Bits of a weight",
      values: ["auto", "32", "16", "8", "4", "0"],
    }),
    slider(store, { key: "memory", label: "Memory, GiB", min: 1, max: 4096, log: true }),
    choice(store, { key: "machine", label: "Machine", values: qkv.machines.map((m) => m.name) }),
    slider(store, { key: "ranks", label: "Machines that share the heads", min: 1, max: 64 }),
  ];
}

/** The five variants, each with its report or why it is refused. */
function compare(qkv, config, options, state) {
  return VARIANTS.map((name) => {
    const label =
      name === "GQA"
        ? `GQA-${state.groups}`
        : name === "MLA"
          ? `MLA, latent ${state.latentWidth}`
          : name;
    const asked = { ...options, variant: variantOf(name, state) };
    try {
      return {
        name: label,
        report: qkv.size(config, asked),
        payload: qkv.sizeCurve(config, CONTEXTS, asked).payload,
      };
    } catch (error) {
      return { name: label, refusal: error.message };
    }
  });
}

export function startSizing(qkv, store) {
  const form = at("size-controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(...controls(qkv, store));
  const curves = new Chart(
    at("curves"),
    "Bytes of keys and values over the context, one line a variant; the table above has the numbers",
  );
  const roof = new Chart(
    at("roof"),
    "Roofline of the machine with prefill and decode; the table below has the numbers",
  );
  let report = null;

  function answer(state) {
    const [config, model] = modelOf(state);
    const options = optionsOf(state, model);
    report = qkv.size(config, { ...options, solve: ["users", "context"] });
    const found = compare(qkv, config, options, state);
    showSummary(report);
    showVariants(found);
    showSteps(report);
    at("strip").replaceChildren(...stripOf(report.layers));
    list("advice", report.advice);
    list("formulas", report.formulas);
    const left = state.memory * GIB - Number(report.models[0].fit.weights);
    curves.show(() =>
      curvesOf(
        CONTEXTS,
        found.filter((v) => v.payload),
        left,
      ),
    );
    at("curves-note").textContent =
      left > 0
        ? `The dashed line is what the weights leave of the memory: ${bytes(left)}.`
        : `The weights alone need more than the memory: ${bytes(report.models[0].fit.weights)}.`;
    roof.show(() => roofOf(report.machine, report.setup.compute !== "f32", pointsOf(report)));
  }

  function show(state) {
    if (state.tab === "play") return;
    try {
      answer(state);
      at("size-refusal").hidden = true;
      at("size-results").hidden = false;
    } catch (error) {
      report = null;
      at("size-refusal").textContent = error.message;
      at("size-refusal").hidden = false;
      at("size-results").hidden = true;
    }
  }

  const done = (text) => (at("action-done").textContent = text);
  at("export-json").addEventListener("click", () => {
    save("qkv-size.json", "application/json", `${toJson(exported(report))}\n`);
    done("saved as qkv-size.json");
  });
  at("export-csv").addEventListener("click", () => {
    save("qkv-size.csv", "text/csv", csvOf(exported(report)));
    done("saved as qkv-size.csv");
  });
  at("copy-link").addEventListener("click", () =>
    navigator.clipboard.writeText(location.href).then(
      () => done("copied"),
      () => done("this browser refuses to copy"),
    ),
  );
  store.subscribe(show);
  show(store.state);
}
