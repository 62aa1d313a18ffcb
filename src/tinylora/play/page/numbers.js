// Arithmetic without a page.

// The nearest bf16: what a slider sets, so that an adapter of 13 numbers stays 26 bytes.
export function bf16(x) {
  const float = new Float32Array([x]);
  const bits = new Uint32Array(float.buffer);
  bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

export function isBf16(x) {
  return bf16(x) === x;
}

// Bytes of v as the adapter's text stores it.
export function bytesOf(values) {
  return values.length * (values.every(isBf16) ? 2 : 4);
}

export function norm(values) {
  return Math.hypot(...values);
}

export function scaled(values, factor) {
  return values.map((x) => bf16(x * factor));
}

// Uniform numbers in [0, 1) from a seed (mulberry32).
export function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// A random direction of the given length (Box and Muller's normals).
export function randomOfNorm(count, length, seed) {
  const next = uniforms(seed);
  const draws = Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
  return scaled(draws, length / norm(draws));
}

export function spread(low, high, count) {
  return Array.from({ length: count }, (_, i) => bf16(low + ((high - low) * i) / (count - 1)));
}

export function shown(x) {
  return x === 0 ? "0" : String(Number(x.toPrecision(3)));
}

// Wilson's 95 % interval of a share.
export function interval(right, of) {
  const z = 1.96, p = right / of, d = 1 + (z * z) / of;
  const middle = (p + (z * z) / (2 * of)) / d;
  const half = (z / d) * Math.sqrt((p * (1 - p)) / of + (z * z) / (4 * of * of));
  return [middle - half, middle + half];
}

export function count(letters, letter) {
  return letters.split(letter).length - 1;
}

// What letters say together; `of` are those that could be judged.
export function summary(letters) {
  const of = letters.length - count(letters, "?");
  const right = count(letters, "r"), broken = count(letters, "b");
  return { right, broken, of, share: of ? right / of : 0, isBroken: of > 0 && broken * 2 > of };
}
