// The numbers of the gallery: computed from formulas, so nobody can take them for a network's.
import type { ViewData } from '../../api';

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

// A picture: two waves and a disc. The bumps lie over it: one up, one down.
export const pictureRows = 48;
export const pictureColumns = 64;
export const picture = Array.from({ length: pictureRows * pictureColumns }, (_, i) => {
  const [r, c] = [Math.floor(i / pictureColumns), i % pictureColumns];
  return [0.5 + 0.4 * Math.sin(c / 9), 0.5 + 0.4 * Math.cos(r / 7), (c - 42) ** 2 + (r - 18) ** 2 < 140 ? 0.9 : 0.15];
}).flat();
export const bumps = Array.from({ length: 6 * 8 }, (_, i) => {
  const [r, c] = [Math.floor(i / 8), i % 8];
  return Math.exp(-((r - 1.8) ** 2 + (c - 5) ** 2) / 3) - 0.7 * Math.exp(-((r - 4) ** 2 + (c - 1) ** 2) / 2);
});
const turned = (k: number) => picture.map((_, i) => picture[(i + 3 * 8 * k) % picture.length]!);
export const views: ViewData[] = [
  { kind: 'picture', title: 'A sheet', pixels: { values: Float64Array.from([0, 1, 2, 3, 4].flatMap(turned)), shape: [5, pictureRows, pictureColumns, 3] }, names: ['as it is', 'turned by 8', 'turned by 16', 'turned by 24 columns', 'turned by 32'] },
  { kind: 'overlay', title: 'From a finding', pixels: { values: Float64Array.from(picture), shape: [pictureRows, pictureColumns, 3] }, values: { values: Float64Array.from(bumps), shape: [6, 8] }, scale: 'signed', limit: 1 },
];

// A made-up net of steps with names from arithmetic: a branch that is joined again, and a skip.
const steps: [string, string, string][] = [
  ['', 'input', '3 numbers'], ['scale', 'scale', 'times 2'], ['branch.square', 'branch.square', 'x²'], ['branch.root', 'branch.root', '√x'], ['branch.root_of_the_absolute_value', 'branch.root_of_the_absolute_value', '√|x|'],
  ['cat 1', 'cat', ''], ['sum', 'sum', 'of all'], ['skip.halve', 'skip.halve', 'x / 2'], ['skip.shift', 'skip.shift', 'x + 1'], ['skip.clip', 'skip.clip', '0 to 1'], ['skip.add 1', 'add', ''], ['output', 'output', 'one number'],
];
export const graphNodes = steps.map(([name, label, detail]) => ({ name, label, detail }));
export const graphEdges = 'scale>branch.square>cat 1 scale>branch.root>branch.root_of_the_absolute_value>cat 1>sum>skip.halve>skip.shift>skip.clip>skip.add 1>output sum>skip.add 1'
  .split(/ (?=s)/)
  .flatMap((chain) => chain.split('>').flatMap((to, i, all) => (i ? [[all[i - 1]!, to] as [string, string]] : [])))
  .concat([['', 'scale']]);
views.push({ kind: 'graph', title: 'A graph from a finding', nodes: steps, edges: graphEdges, rank: [] });
