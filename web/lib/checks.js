// checks.js - refusals of options, with the name, the value and what is accepted.
import { QkvError } from "./module.js";

export function refuse(sentence) {
  throw new QkvError("QKV_ERR_ARGUMENT", sentence);
}

/** The value's entry of a Map. */
export function choice(name, value, values) {
  if (!values.has(value))
    refuse(
      `${name} is ${String(value)}; accepted are ${[...values.keys()].map(String).join(", ")}`,
    );
  return values.get(value);
}

/** An integer of 32 bits. */
export function integer(name, value, low = 0) {
  if (!Number.isInteger(value) || value < low || value > 2147483647)
    refuse(`${name} is ${String(value)}; it must be an integer from ${low} to 2147483647`);
  return value;
}

/** An integer that JavaScript holds exactly. */
export function count(name, value) {
  if (!Number.isSafeInteger(value) || value < 0)
    refuse(`${name} is ${String(value)}; it must be an integer from 0 to 2^53 - 1`);
  return value;
}

export function finite(name, value) {
  if (typeof value !== "number" || !Number.isFinite(value))
    refuse(`${name} is ${String(value)}; it must be a finite number`);
  return value;
}

export function arrayOf(name, value, Type, length) {
  if (!(value instanceof Type)) refuse(`${name} must be a ${Type.name}`);
  if (length !== undefined && value.length !== length)
    refuse(`${name} has ${value.length} elements; it must have ${length}`);
  return value;
}

/** Every name of options must be known. */
export function known(options, names) {
  for (const name of Object.keys(options))
    if (!names.includes(name)) refuse(`${name} is no option; they are ${names.join(", ")}`);
}
