/** The ramps that every canvas uses, read from the tokens: signed, magnitude (gold) and ink. */
export type Scale = 'signed' | 'magnitude' | 'ink';
type Rgb = [number, number, number];

// Looked up a thousand times a frame: 256 steps of each ramp are kept, made anew when the theme changes.
let cache: { key: string; colours: Record<string, Rgb>; ramps: Record<string, string[]> } = { key: '', colours: {}, ramps: {} };
const STEPS = 255;

function token(name: string): Rgb {
  return (cache.colours[name] ??= parse(getComputedStyle(document.documentElement).getPropertyValue(name).trim()));
}

function ramp(from: string, to: string): string[] {
  const root = document.documentElement;
  const key = `${root.dataset['theme']}/${root.dataset['signed']}`;
  if (cache.key !== key) cache = { key, colours: {}, ramps: {} };
  return (cache.ramps[from + to] ??= Array.from({ length: STEPS + 1 }, (_, i) => mixed(token(from), token(to), i / STEPS)));
}

function parse(given: string): Rgb {
  // The build shortens #ffffff to #fff.
  const hex = given.length === 4 ? given.replace(/[^#]/g, '$&$&') : given;
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as Rgb;
}

function mixed(from: Rgb, to: Rgb, share: number): string {
  // In sRGB as it is: there equal steps look equal (L* within 2; in linear light the first quarter of the dark ramp took half).
  const part = (a: number, b: number) => Math.round((1 - share) * a + share * b);
  return `rgb(${part(from[0], to[0])} ${part(from[1], to[1])} ${part(from[2], to[2])})`;
}

/** The colour of a value; `limit` is the value of the strongest colour. */
export function colour(value: number, scale: Scale, limit: number): string {
  if (!Number.isFinite(value)) return ramp('--bad', '--bad')[0]!;
  const share = Math.min(Math.abs(value) / (limit || 1), 1);
  const step = Math.round(STEPS * (scale === 'ink' && value < 0 ? 0 : share));
  if (scale === 'ink') return ramp('--ink-0', '--ink-1')[step]!;
  if (scale === 'magnitude') return ramp('--gold-0', '--gold-1')[step]!;
  return ramp('--zero', value < 0 ? '--minus' : '--plus')[step]!;
}

/** Black or white, whichever is read better on that colour: pure black, so that the worse case still has 4.5 : 1. */
export function onTop(background: string): string {
  const [r, g, b] = background.match(/\d+/g)!.map(Number) as Rgb;
  const light = 0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2;
  return light > 0.179 ? '#000000' : '#ffffff';
}

/** Many values at once, each a pixel: the same colours as `colour` gives, for pictures that move. */
export function painted(values: ArrayLike<number>, columns: number, scale: Scale, limit: number, centre = 0): ImageData {
  const image = new ImageData(columns, values.length / columns);
  const seen = new Map<string, Rgb>();
  for (let i = 0; i < values.length; i++) {
    const text = colour(values[i]! - centre, scale, limit);
    let rgb = seen.get(text);
    if (!rgb) seen.set(text, (rgb = text.match(/\d+/g)!.map(Number) as Rgb));
    image.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * i);
  }
  return image;
}
