// Heights over a plane: what the contour map and the surface in 3D have in common, so that both show the same numbers in
// the same shades.
import { shown } from '../numbers';

/** A way over the plane. `losses` are the path's own heights, exact at each of its points. */
export interface Path {
  name: string;
  points: ArrayLike<number>; // x and y in turn
  losses?: ArrayLike<number>;
  colour?: string; // a token, --series-0, or any colour
}
export type Rgb = [red: number, green: number, blue: number];

export const sorted = (z: ArrayLike<number>) => Float64Array.from(z).filter(Number.isFinite).sort();

/** The height below which lies that share of the sorted heights. */
export function quantile(heights: ArrayLike<number>, share: number): number {
  const exact = share * (heights.length - 1), low = Math.floor(exact);
  return heights[low]! + (exact - low) * (heights[Math.min(low + 1, heights.length - 1)]! - heights[low]!);
}
/** How many of the ascending values are not above this one. */
export function notAbove(ascending: ArrayLike<number>, value: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
/** The edges of the shades: equal shares of the heights lie between two of them. */
export function edgesOf(heights: ArrayLike<number>, levels: number): number[] {
  if (!heights.length) return [];
  return [...new Set(Array.from({ length: levels - 1 }, (_, i) => quantile(heights, (i + 1) / levels)))].filter((edge) => edge > heights[0]!);
}
/** A token's colour as it is in this theme. */
export function rgbOf(token: string): Rgb {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(token).trim();
  const long = hex.length === 4 ? hex.replace(/[^#]/g, '$&$&') : hex;
  return [1, 3, 5].map((from) => parseInt(long.slice(from, from + 2), 16)) as Rgb;
}
/** So many shades from the lowest to the highest, in this theme. */
export function shadesOf(count: number): Rgb[] {
  const stops = ['--gold-0', '--gold-1', '--text'].map(rgbOf);
  return Array.from({ length: count }, (_, i) => {
    const exact = (2 * i) / Math.max(1, count - 1), low = Math.min(1, Math.floor(exact));
    return stops[low]!.map((from, k) => Math.round(from + (exact - low) * (stops[low + 1]![k]! - from))) as Rgb;
  });
}
/** The line between two shades: darker than a light one, lighter than a dark one. */
export function lineOn(paint: Rgb): Rgb {
  const dark = 0.2126 * paint[0] + 0.7152 * paint[1] + 0.0722 * paint[2] < 110;
  return paint.map((part) => (dark ? part + 0.3 * (255 - part) : 0.72 * part)) as Rgb;
}
/** Where the lowest and the highest finite height are, −1 where there is none. */
export function extremes(z: ArrayLike<number>): [lowest: number, highest: number] {
  let [least, most] = [-1, -1];
  for (let i = 0; i < z.length; i++) {
    if (!Number.isFinite(z[i])) continue;
    if (least < 0 || z[i]! < z[least]!) least = i;
    if (most < 0 || z[i]! > z[most]!) most = i;
  }
  return [least, most];
}
export function closest(axis: ArrayLike<number>, value: number): number {
  let best = 0;
  for (let i = 1; i < axis.length; i++) if (Math.abs(axis[i]! - value) < Math.abs(axis[best]! - value)) best = i;
  return best;
}
/** A path's colour as the page writes it: its own, or the next of the series. */
export function colourOf(path: Path, k: number): string {
  return path.colour?.replace(/^var\((--[\w-]+)\)$/, '$1') ?? `--series-${(k + 4) % 8}`;
}
/** One sentence: where it is lowest and where highest. */
export function summaryOf(z: ArrayLike<number>, zLabel: string, place: (i: number) => string): string {
  const [lowest, highest] = extremes(z);
  if (lowest < 0) return `none of the ${z.length} values is a finite number`;
  return `lowest ${zLabel} ${shown(z[lowest]!, 4)} at ${place(lowest)}; highest ${shown(z[highest]!, 4)} at ${place(highest)}`;
}
