// The numbers of the gallery: computed from formulas, so nobody can take them for a network's.
export const rows = 8;
export const columns = 8;
const cells = (of: (row: number, column: number) => number) =>
  Array.from({ length: rows * columns }, (_, i) => of(Math.floor(i / columns), i % columns));

export const wave = cells((r, c) => Math.sin((r * Math.PI) / 4) * Math.cos((c * Math.PI) / 4));
export const hill = cells((r, c) => Math.exp(-((r - 3.5) ** 2 + (c - 3.5) ** 2) / 6));
export const zeros = cells(() => 0);
export const broken = wave.map((value, i) => (i === 9 ? NaN : value));

export const x = Array.from({ length: 61 }, (_, i) => i / 10);
export const curves = { sine: x.map(Math.sin), cosine: x.map(Math.cos), 'sine, fading': x.map((v) => Math.sin(v) * Math.exp(-v / 3)) };
export const eight = Object.fromEntries(Array.from({ length: 8 }, (_, k) => [`phase ${k}`, x.map((v) => Math.sin(v + (k * Math.PI) / 8))]));

export const digits = Array.from('0123456789');
export const parabola = digits.map((_, i) => 1 - ((i - 4) / 6) ** 2);
