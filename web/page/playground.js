// playground.js - one attention, step by step, computed by the library's kernels.
import { check, choice, element, slider, text } from "./controls.js";
import { MOST_WORDS, problemOf, ROPE, wordsOf } from "./draws.js";
import { matrixOf } from "./matrix.js";
import { MOST_TOKENS, problemOfFile, readSafetensors } from "./safetensors.js";
import { sharingOf } from "./sharing.js";

const CHANNELS = 8; // of the result that are shown
const SINK = 2; // its logit
const at = (id) => document.getElementById(id);

function controls(store) {
  const notMla = (state) => state.sharing !== "MLA";
  return [
    text(store, { key: "text", label: `A sentence (${MOST_WORDS} words at most)` }),
    slider(store, { key: "seed", label: "Seed of the numbers", min: 1, max: 99 }),
    choice(store, {
      key: "sharing",
      label: "Heads share keys and values as",
      values: ["MHA", "GQA", "MQA", "MLA"],
    }),
    slider(store, { key: "pHeads", label: "Query heads", min: 1, max: 16 }),
    slider(store, {
      key: "pGroups",
      label: "Key/value heads",
      min: 1,
      max: 16,
      shown: (s) => s.sharing === "GQA",
    }),
    slider(store, {
      key: "pDim",
      label: "Channels of a head, d",
      min: 1,
      max: 1024,
      log: true,
      shown: notMla,
    }),
    slider(store, {
      key: "pLatent",
      label: "Width of the latent",
      min: 1,
      max: 512,
      log: true,
      shown: (s) => !notMla(s),
    }),
    slider(store, { key: "head", label: "Head that is shown", min: 0, max: 15 }),
    slider(store, { key: "queries", label: "Queries: the last words", min: 1, max: MOST_WORDS }),
    check(store, { key: "scaled", label: "Divide scores by sqrt(d)" }),
    choice(store, { key: "causal", label: "Causal mask", values: ["no", "inclusive", "strict"] }),
    choice(store, { key: "align", label: "Query 0 stands", values: ["bottom-right", "top-left"] }),
    slider(store, {
      key: "pWindow",
      label: "Window, keys in sight (0: all)",
      min: 0,
      max: MOST_WORDS,
    }),
    slider(store, { key: "softcap", label: "Soft-cap (0: none)", min: 0, max: 50 }),
    check(store, { key: "sink", label: `A sink with logit ${SINK}` }),
  ];
}

function optionsOf(state, sizes, asked, words) {
  return {
    ...sizes,
    queries: asked.length,
    keys: words.length,
    scale: state.scaled ? 1 / Math.sqrt(sizes.headDim) : 1,
    softcap: state.softcap,
    causal: { no: false, inclusive: true, strict: "strict" }[state.causal] ?? false,
    align: state.align,
    ...(state.pWindow > 0 ? { window: [state.pWindow - 1, null] } : {}),
    ...(state.sink ? { sinks: new Float32Array(sizes.heads).fill(SINK) } : {}),
  };
}

/** Opens q, k and v of a file instead of words; take(null) goes back to them. */
function fileField(take) {
  const input = element("input", { id: "f-file", type: "file", accept: ".safetensors" });
  const back = element(
    "button",
    { type: "button", id: "back-to-words", hidden: true },
    "Back to the sentence",
  );
  input.addEventListener("change", async () => {
    if (!input.files[0]) return;
    take(await input.files[0].arrayBuffer());
    back.hidden = false;
  });
  back.addEventListener("click", () => {
    take(null);
    input.value = "";
    back.hidden = true;
    input.focus();
  });
  return element(
    "div",
    { class: "field" },
    element(
      "label",
      { for: "f-file" },
      `Or q, k and v of a .safetensors file, [heads, tokens, channels], up to ${MOST_TOKENS} tokens`,
    ),
    input,
    back,
  );
}

/** The stages of all heads: what the kernels say at each of them. */
function compute(qkv, state, { words, asked, q, k, v, sizes }) {
  const options = optionsOf(state, sizes, asked, words);
  const at = (more) => qkv.attention(q, k, v, { ...options, ...more });
  const last = at({ weights: true, lse: true });
  return {
    asked,
    sizes,
    options,
    plain: at({ weights: "scores", scale: 1 }).weights,
    scaled: at({ weights: "scores" }).weights,
    capped: at({ weights: "capped" }).weights,
    biased: at({ weights: "biased" }).weights,
    weights: last.weights,
    o: last.o,
    lse: last.lse,
    kernel: last.kernel,
    pairs: qkv.visiblePairs(q, k, v, options),
  };
}

// ---- measures ----

const mean = (list) => list.reduce((a, x) => a + x, 0) / Math.max(1, list.length);
const deviation = (list) => Math.sqrt(mean(list.map((x) => (x - mean(list)) ** 2)));

function rowsOf(weights, n) {
  return Array.from({ length: weights.length / n }, (_, i) => [
    ...weights.subarray(i * n, (i + 1) * n),
  ]);
}

const bits = (row) => row.reduce((a, p) => a - (p > 0 ? p * Math.log2(p) : 0), 0);

function showMeasures(state, words, r) {
  const rows = rowsOf(r.weights, words.length).filter((row) => row.some((p) => p > 0));
  const scores = [...r.scaled],
    d = r.sizes.headDim,
    expected = state.scaled ? 1 : Math.sqrt(d);
  const pair = (term, value, small) =>
    element(
      "div",
      {},
      element("dt", {}, term),
      element("dd", {}, value, element("small", {}, small)),
    );
  at("measures").replaceChildren(
    pair(
      "Spread of scores",
      deviation(scores).toFixed(2),
      `N(0, 1) numbers give ${expected.toFixed(2)}: ${state.scaled ? "1" : `sqrt(${d})`}`,
    ),
    pair(
      "Largest weight of a row",
      mean(rows.map((row) => Math.max(...row))).toFixed(3),
      "mean of rows; 1 is saturated",
    ),
    pair(
      "Entropy of a row",
      `${mean(rows.map(bits)).toFixed(2)} bits`,
      `even weights over ${words.length} keys: ${Math.log2(words.length).toFixed(2)}`,
    ),
    pair("Pairs in sight", `${r.pairs} of ${r.weights.length}`, "of query and key, all heads"),
    pair("Kernel", r.kernel.replaceAll("_", "_\u200b"), "chosen by the library"),
  );
}

// ---- steps ----

function headOf(values, head, perHead) {
  return values.slice(head * perHead, (head + 1) * perHead);
}

function showSteps(state, words, r) {
  const head = Math.min(state.head, r.sizes.heads - 1),
    perHead = r.asked.length * words.length;
  const pick = (values) => headOf(values, head, perHead);
  const biased = pick(r.biased),
    weights = pick(r.weights);
  const hidden = (i, j) => biased[i * words.length + j] === -Infinity;
  const table = { rows: r.asked, columns: words };
  const outputs = headOf(r.o, head, r.asked.length * r.sizes.headDimV);
  const channels = Math.min(CHANNELS, r.sizes.headDimV);
  const left = r.asked.map(
    (_, i) =>
      1 - weights.slice(i * words.length, (i + 1) * words.length).reduce((a, x) => a + x, 0),
  );
  const result = r.asked.flatMap((_, i) => [
    ...outputs.slice(i * r.sizes.headDimV, i * r.sizes.headDimV + channels),
  ]);
  const { options } = r;
  at("matrices").replaceChildren(
    matrixOf({
      ...table,
      title: `1. q . k of head ${head}`,
      note: `Rows are queries, columns keys; a sum of ${r.sizes.headDim} products each.`,
      values: pick(r.plain),
    }),
    matrixOf({
      ...table,
      title: `2. Scaled by ${options.scale.toPrecision(4)}${cappedWords(state)}`,
      note:
        state.softcap > 0
          ? `c tanh(s / c) with c = ${state.softcap}.`
          : state.scaled
            ? "1 / sqrt(d) brings the spread back to 1."
            : "Not divided: the spread stays sqrt(d).",
      values: pick(r.capped),
    }),
    matrixOf({
      ...table,
      title: "3. Masked",
      note: maskWords(state, r.asked.length, words.length),
      values: biased,
      hidden,
    }),
    matrixOf({
      ...table,
      title: "4. Softmax",
      note: state.sink
        ? "Rows sum to 1 with the sink, which has weight and no value."
        : "Rows sum to 1; a row that sees nothing is all 0.",
      values: weights,
      hidden,
      more: state.sink ? ["sink", left] : undefined,
    }),
    matrixOf({
      title: "5. Result",
      note: `Weights times values: the first ${channels} of ${r.sizes.headDimV} channels.`,
      rows: r.asked,
      columns: Array.from({ length: channels }, (_, c) => `o${c}`),
      values: result,
    }),
  );
}

const cappedWords = ({ softcap }) => (softcap > 0 ? `, capped at ${softcap}` : "");

function maskWords(state, asked, n) {
  const first = state.align === "bottom-right" ? n - asked : 0;
  if (state.causal === "no" && state.pWindow === 0) return "Nothing is hidden.";
  const causal = {
    no: "",
    inclusive: "keys up to its own position",
    strict: "keys before its own position",
  }[state.causal];
  const window = state.pWindow > 0 ? `the last ${state.pWindow} positions` : "";
  const seen = [causal, window].filter(Boolean).join(" within ");
  return `Query 0 stands at position ${first}; a query sees ${seen}.`;
}

function problemOfWords(state) {
  const words = wordsOf(state.text);
  if (words.length === 0) throw new Error("the sentence has no words");
  return { words, ...problemOf(state, words) };
}

/** What the picture of sharing needs, from the tensors of a file. */
function sharingOfSizes({ heads, kvHeads, headDim }, { head }) {
  return {
    sharing: "GQA",
    pHeads: heads,
    pGroups: kvHeads,
    pDim: headDim,
    head: Math.min(head, heads - 1),
  };
}

export function startPlayground(qkv, store) {
  const form = at("play-controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  let opened = null; // the bytes of a file, instead of words
  form.append(
    ...controls(store),
    fileField((buffer) => {
      opened = buffer;
      show(store.state);
    }),
    element(
      "p",
      { class: "note" },
      "Queries, keys and values are independent N(0, 1) numbers drawn from each word and the " +
        `seed: not those of a trained model. MLA has ${ROPE} rotary channels.`,
    ),
  );

  function show(state) {
    if (state.tab !== "play") return;
    try {
      const problem = opened ? problemOfFile(readSafetensors(opened), qkv) : problemOfWords(state);
      const { words } = problem,
        r = compute(qkv, state, problem);
      at("sharing").replaceChildren(
        ...sharingOf(
          opened
            ? sharingOfSizes(problem.sizes, state)
            : { ...state, head: Math.min(state.head, state.pHeads - 1) },
        ),
      );
      showMeasures(state, words, r);
      showSteps(state, words, r);
      at("play-refusal").hidden = true;
      at("play-results").hidden = false;
    } catch (error) {
      at("play-refusal").textContent = error.message;
      at("play-refusal").hidden = false;
      at("play-results").hidden = true;
    }
  }

  store.subscribe(show);
  show(store.state);
}
