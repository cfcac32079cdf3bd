/** The ramps that every canvas uses, read from the tokens: signed, magnitude (gold) and ink. */
export type Scale = 'signed' | 'magnitude' | 'ink';
type Rgb = [number, number, number];

let cache: { key: string; colours: Record<string, Rgb> } = { key: '', colours: {} };

function token(name: string): Rgb {
  const root = document.documentElement;
  const key = `${root.dataset['theme']}/${root.dataset['signed']}`;
  if (cache.key !== key) cache = { key, colours: {} };
  return (cache.colours[name] ??= parse(getComputedStyle(root).getPropertyValue(name).trim()));
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
  const share = Math.min(Math.abs(value) / (limit || 1), 1);
  if (!Number.isFinite(value)) return mixed(token('--bad'), token('--bad'), 1);
  if (scale === 'ink') return mixed(token('--ink-0'), token('--ink-1'), Math.max(0, Math.min(value / (limit || 1), 1)));
  if (scale === 'magnitude') return mixed(token('--gold-0'), token('--gold-1'), share);
  return mixed(token('--zero'), token(value < 0 ? '--minus' : '--plus'), share);
}

/** Black or white, whichever is read better on that colour. */
export function onTop(background: string): string {
  const [r, g, b] = background.match(/\d+/g)!.map(Number) as Rgb;
  const light = 0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2;
  return light > 0.18 ? '#1b1814' : '#ffffff';
}
