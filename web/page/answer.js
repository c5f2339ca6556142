// answer.js - the answer of sizing in words and tables.
import { element } from "./controls.js";
import { bytes, exact, seconds } from "./words.js";

const at = (id) => document.getElementById(id);

const pair = (term, value, small) =>
  element(
    "div",
    {},
    element("dt", {}, term),
    element("dd", {}, value, element("small", {}, small)),
  );

export function showSummary(report) {
  const [{ cache, fit, parameters, rank, work }] = report.models;
  const answer = (what) => report.solved.find((x) => x.what === what);
  const users = answer("users"),
    context = answer("context");
  const decode = work.decode?.seconds?.all;
  const rows = [
    pair("Keys and values", bytes(cache.payload), `${exact(cache.payload)} bytes`),
    cache.allocated === null
      ? pair("As qkv allocates", "-", "qkv stores no such format")
      : pair(
          "As qkv allocates",
          bytes(cache.allocated),
          `${exact(cache.allocated)} bytes, whole pages`,
        ),
    pair(
      "A token adds at first",
      bytes(cache.bytes_token),
      `${exact(cache.elements_token)} elements`,
    ),
    pair(
      "Weights",
      bytes(fit.weights),
      `${exact(parameters.total)} parameters at ${report.setup.weight_bits} bits`,
    ),
    pair(
      "Fits?",
      fit.fits_memory ? "yes" : "no",
      `${bytes(fit.needed)} of ${bytes(report.memory)}`,
    ),
    pair(
      "Users that fit",
      users.found ? exact(users.value) : "0",
      `of ${exact(report.setup.context)} tokens`,
    ),
    pair(
      "Longest context",
      context.found ? exact(context.value) : "0",
      `for ${exact(report.setup.batch)} at once`,
    ),
  ];
  if (decode)
    rows.push(
      pair(
        "A step of decoding",
        `${seconds(decode.best)} to ${seconds(decode.worst)}`,
        `bound by ${decode.bound}`,
      ),
    );
  if (report.setup.ranks > 1)
    rows.push(
      pair(
        "Cache of a machine",
        bytes(rank.payload),
        `${exact(rank.payload)} bytes of ${report.setup.ranks} machines`,
      ),
    );
  if (report.models[0].not_priced)
    rows.push(pair("Not priced", "fields", report.models[0].not_priced));
  at("summary").replaceChildren(...rows);
}

function row(cells, tag = "td") {
  return element(
    "tr",
    {},
    ...cells.map((cell) => (cell instanceof Node ? cell : element(tag, {}, cell))),
  );
}

export function showVariants(found) {
  const most = Math.max(...found.map((v) => Number(v.report?.models[0].cache.payload ?? 0)));
  const rows = found.map(({ name, report, refusal }) => {
    if (!report) return row([name, element("td", { colSpan: 4 }, refusal)]);
    const { cache, fit } = report.models[0];
    const bar = element(
      "td",
      { class: "bar" },
      element("span", { style: `width:${(100 * Number(cache.payload)) / most}%` }),
    );
    return row([
      name,
      exact(cache.payload),
      bytes(cache.payload),
      fit.fits_memory ? "fits" : "does not fit",
      bar,
    ]);
  });
  at("variants").replaceChildren(
    element("thead", {}, row(["variant", "bytes", "", "with weights", ""], "th")),
    element("tbody", {}, ...rows),
  );
  for (const empty of at("variants").querySelectorAll("th:empty")) empty.replaceWith(element("td"));
}

export function showSteps(report) {
  const { work } = report.models[0];
  const names = {
    prefill: "prefill",
    chunked_prefill: "prefill in chunks",
    decode: "decode, with a cache",
    decode_without_cache: "decode, without",
  };
  const rows = Object.entries(names)
    .filter(([step]) => work[step])
    .map(([step, name]) => {
      const { all, seconds: time } = work[step];
      return row([
        name,
        exact(all.multiply_adds),
        exact(all.bytes),
        time.all.intensity.toLocaleString("en", { maximumSignificantDigits: 4 }),
        `${seconds(time.all.best)} to ${seconds(time.all.worst)}`,
        time.all.bound,
      ]);
    });
  at("steps").replaceChildren(
    element(
      "thead",
      {},
      row(["step", "multiply-adds", "bytes moved", "FLOPs a byte", "time", "bound by"], "th"),
    ),
    element("tbody", {}, ...rows),
  );
}

export function pointsOf(report) {
  const { work } = report.models[0],
    points = [];
  for (const [step, name] of [
    ["prefill", "prefill"],
    ["decode", "decode"],
  ]) {
    const { all, stages, seconds: time } = work[step] ?? {};
    if (!all) continue;
    points.push({
      name,
      intensity: time.all.intensity,
      rate: (2 * Number(all.multiply_adds)) / time.all.best,
    });
    const products = Number(stages.scores.multiply_adds) + Number(stages.values.multiply_adds);
    points.push({
      name: `${name}, attention only`,
      intensity: time.attention.intensity,
      rate: (2 * products) / time.attention.best,
    });
  }
  return points.filter((p) => p.intensity > 0 && p.rate > 0);
}

export function list(id, lines) {
  at(id).replaceChildren(...lines.map((line) => element("li", {}, line)));
}
