// An architecture piece worked on one example: what is set, which place is looked at, which sub-step, which number.
import { binary, Failure, json, latestWins, list, type Check, type Numbers } from '../api';
import { LAYOUTS, spoken, type Options, type Part, type Sub } from '../pages/Learning/pieces/layout';
import { permalink } from './permalink.svelte';

export interface Control {
  name: string;
  label: string;
  default: string | number | boolean;
  help: string;
  choices: [value: string, text: string][];
  low: number;
  high: number;
  only: string[]; // a control, and those of its choices with which this one is shown
}
export interface About {
  name: string;
  title: string;
  does: string;
  why: string;
  source: string;
  controls: Control[];
  pick: 'digit' | 'text';
}
export interface Report {
  piece: string;
  options: Options;
  numbers: Record<string, Numbers>;
  dims: Record<string, string>;
  about: Record<string, string>;
  given: string[];
  names: Record<string, string[]>;
  said: string;
  total: number;
  paints: boolean; // the input is a digit's own pixels
  checks: Check[];
  python: string;
}
export interface Operand { array: string; index: number[]; power: number; value: number }
export interface Product { coefficient: number; operands: Operand[] }
export interface Term extends Product { value: number; factors: Product | null } // factors: of a term that is itself a product
export interface Opened {
  array?: string;
  index?: number[];
  value?: number;
  about?: string;
  then?: string;
  given?: boolean;
  terms?: Term[];
  operands: Record<string, number[]>;
  sources: Record<string, number[]>;
  slope?: { ours: number; central: number; error: number; bound: number; left: number; right: number; kink: boolean } | null;
}
export interface Edit { array: string; index: number[]; value: number }
export interface Spot { array: string; index: (number | null)[] }
interface Frame { name: string; say: string; spot: Spot | null; backward: boolean; swept: boolean; falling: boolean; place: Record<string, number> }

/** Does the text name this place: "input:0.2.3:0.5"? */
const edited = (text: string): Edit | null => {
  const [array, index, value] = text.split(':');
  const places = (index ?? '').split('.').map(Number);
  return array && places.every(Number.isInteger) && value && Number.isFinite(Number(value)) ? { array, index: places, value: Number(value) } : null;
};

export class Pieces {
  all: About[] = $state.raw([]);
  piece = $state('convolution');
  options: Options = $state.raw({});
  index = $state(7);
  seed = $state(0);
  text = $state('The cat chases mice');
  upstream: 'ones' | 'seeded' = $state('seeded');
  edits: Edit[] = $state.raw([]);
  place: Record<string, number> = $state.raw({});
  at = $state(0); // which sub-step; 0 shows all at once
  speed = $state('normal');
  listed = $state(true); // the eight pieces with what each does

  report = $state.raw<Report | null>(null);
  opened = $state.raw<Opened | null>(null);
  trail: Spot[] = $state.raw([]); // the numbers opened by hand, one from the other
  back = $state(0); // how far back along the trail
  failure = $state.raw<Failure | null>(null);
  playing = $state(false);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private undone: Edit[][] = [];
  private redone: Edit[][] = [];

  layout = $derived(LAYOUTS[this.piece] ?? LAYOUTS['convolution']!);
  about = $derived(this.all.find((one) => one.name === this.piece) ?? null);
  /** The report of another piece is not this one's. */
  current = $derived(this.report?.piece === this.piece ? this.report : null);
  frames = $derived.by((): Frame[] => {
    const whole: Frame = { name: 'All at once', say: `Every number below was worked out on this example. Click any of them to open its arithmetic${this.current?.paints ? ', drag on the input to paint' : ''}, or press Space for slow motion.`, spot: null, backward: false, swept: false, falling: false, place: {} };
    return this.current ? [whole, ...this.layout.steps.flatMap((sub) => this.swept(sub, false)), ...this.layout.back.flatMap((sub) => this.swept(sub, true))] : [whole];
  });
  frame = $derived(this.frames[Math.min(this.at, this.frames.length - 1)]!);
  /** The place that the grids show: the sub-step's own, while one is on. */
  here = $derived({ ...this.place, ...this.frame.place });
  entry = $derived<Spot | null>(this.trail.length ? (this.trail[this.trail.length - 1 - this.back] ?? null) : null);
  /** What is opened: the number that was clicked, or the sub-step's. */
  spot = $derived(this.entry ?? this.frame.spot);
  request = $derived({ piece: this.piece, options: this.options, index: this.index, seed: this.seed, text: this.text, upstream: this.upstream, edits: this.edits });

  start() {
    const query = new URLSearchParams(location.search);
    const whole = (name: string, otherwise: number) => (/^\d+$/.test(query.get(name) ?? '') ? Number(query.get(name)) : otherwise);
    if (LAYOUTS[query.get('piece') ?? '']) [this.piece, this.listed] = [query.get('piece')!, false];
    this.index = whole('digit', 7);
    this.seed = whole('seed', this.layout.seed ?? 0);
    this.at = whole('step', 0);
    this.text = query.get('text') ?? this.text;
    this.upstream = query.get('slope') === 'ones' ? 'ones' : 'seeded';
    this.edits = (query.get('edits') ?? '').split(',').map(edited).filter((edit) => edit !== null);
    this.place = { ...this.layout.place };
    for (const part of (query.get('at') ?? '').split(',')) {
      const [letter, at] = part.split(':');
      if (letter && /^\d+$/.test(at ?? '')) this.place = { ...this.place, [letter]: Number(at) };
    }
    const words = [...query].filter(([key]) => key.startsWith('o.'));
    this.options = Object.fromEntries(words.map(([key, value]) => [key.slice(2), value !== '' && Number.isFinite(Number(value)) ? Number(value) : value]));
    json<About[]>('/api/pieces').then((found) => (this.all = found), (error) => (this.failure = error));
    const work = latestWins<Report>(
      (found) => {
        [this.report, this.failure] = [found, null];
        this.fit(found);
      },
      (error) => (this.failure = error),
    );
    $effect(() => {
      const body = this.request;
      work(() => binary<Report>('/api/piece', body));
    });
    const open = latestWins<Opened | null>((found) => (this.opened = found), (error) => ([this.opened, this.failure] = [null, error]));
    $effect(() => {
      const [spot, report] = [this.spot, this.current];
      const body = this.request;
      if (!spot || !report) open(() => Promise.resolve(null));
      else open(() => binary<Opened>('/api/piece/number', { ...body, array: spot.array, at: spot.index }));
    });
    permalink(() => {
      const query = new URLSearchParams({ piece: this.piece, digit: String(this.index), seed: String(this.seed), step: String(this.at) });
      if (this.upstream === 'ones') query.set('slope', 'ones');
      if (this.about?.pick === 'text') query.set('text', this.text);
      for (const [name, value] of Object.entries(this.options)) query.set(`o.${name}`, String(value));
      if (this.edits.length) query.set('edits', this.edits.map((edit) => `${edit.array}:${edit.index.join('.')}:${edit.value}`).join(','));
      query.set('at', Object.entries(this.place).map(([letter, at]) => `${letter}:${at}`).join(','));
      return query;
    });
    $effect(() => () => clearTimeout(this.timer));
  }

  /** The place lies inside what there is now; the sub-step too. */
  private fit(report: Report) {
    const sizes: Record<string, number> = {};
    for (const [array, dims] of Object.entries(report.dims)) dims.split(' ').forEach((letter, axis) => (sizes[letter] = Math.min(sizes[letter] ?? Infinity, report.numbers[array]!.shape[axis]!)));
    this.place = Object.fromEntries(Object.entries({ ...this.layout.place, ...this.place }).map(([letter, at]) => [letter, Math.min(at, (sizes[letter] ?? at + 1) - 1)]));
    this.at = Math.min(this.at, this.frames.length - 1);
  }
  private swept(sub: Sub, backward: boolean): Frame[] {
    const report = this.current!;
    const [array, inside] = sub.at.slice(0, -1).split('[') as [string, string];
    const numbers = report.numbers[array];
    if (!numbers) return []; // another loss or cell has it, this one has not
    const dims = report.dims[array]!.split(' ');
    const wide = (sub.wide ?? '').split(' ').filter((letter) => dims.includes(letter));
    const letters = wide.length ? wide : (sub.sweep ?? '').split(' ').filter(Boolean);
    let places: Record<string, number>[] = [{}];
    for (const letter of letters) places = places.flatMap((place) => Array.from({ length: numbers.shape[dims.indexOf(letter)]! }, (_, at) => ({ ...place, [letter]: at })));
    if (sub.backwards) places.reverse();
    return places.map((swept) => {
      const place = { ...this.place, ...swept };
      const index = (inside === '…' ? dims : inside.split(' ')).map((token, axis) => (token === '*' ? null : Math.min(numbers.shape[axis]! - 1, /^\d/.test(token) ? Number(token) : (place[token] ?? 0))));
      return { name: sub.name, say: sub.say, spot: { array, index }, backward, swept: letters.length > 0, falling: sub.backwards ?? false, place: swept };
    });
  }

  /** What a part of the drawing shows: which cells of the array, in which rows. */
  slice(part: Part) {
    const report = this.current!;
    const numbers = report.numbers[part.array]!;
    const dims = report.dims[part.array]!.split(' ');
    const axes = part.columns === undefined ? dims.slice(-2) : [...(part.rows ?? '').split(' '), part.columns].filter(Boolean);
    const sizes = numbers.shape;
    const strides = sizes.map((_, axis) => sizes.slice(axis + 1).reduce((a, b) => a * b, 1));
    let places = [0];
    dims.forEach((letter, axis) => {
      const fixed = Math.min(part.fix?.[letter] ?? this.here[letter] ?? 0, sizes[axis]! - 1);
      places = axes.includes(letter) ? places.flatMap((at) => Array.from({ length: sizes[axis]! }, (_, i) => at + i * strides[axis]!)) : places.map((at) => at + fixed * strides[axis]!);
    });
    const columns = part.wrap ?? (axes.length === 1 ? places.length : sizes[dims.indexOf(axes[axes.length - 1]!)]!);
    const names = report.names[axes.length > 1 ? axes[0]! : ''] ?? [];
    const columnNames = report.names[axes[axes.length - 1]!] ?? [];
    return { places, columns, names, columnNames, rows: Math.ceil(places.length / columns), values: places.map((at) => Number(numbers.values[at])) };
  }
  index_of(array: string, flat: number): number[] {
    const shape = this.current!.numbers[array]!.shape;
    return shape.map((size, axis) => Math.floor(flat / shape.slice(axis + 1).reduce((a, b) => a * b, 1)) % size);
  }
  /** Axes of which one place is shown at a time, with how many there are: which head, which map. */
  choices = $derived.by(() => {
    const report = this.current;
    if (!report || this.layout.chosen?.(report.options) === false) return [];
    return Object.entries(this.layout.choose ?? {}).flatMap(([letter, label]) => {
      const found = Object.entries(report.dims).find(([, dims]) => dims.split(' ').includes(letter));
      const count = found ? report.numbers[found[0]]!.shape[found[1].split(' ').indexOf(letter)]! : 1;
      return count > 1 ? [{ letter, label, count, names: report.names[letter] }] : [];
    });
  });
  /** "row 2, column 3": a place in words; axes of one place are left out, and those it has in common with `than`. */
  where(array: string, index: (number | null)[], than: Record<string, number> = {}): string {
    const report = this.current;
    if (!report) return '';
    const dims = (report.dims[array] ?? '').split(' ');
    const said = index.map((at, axis) => {
      const letter = dims[axis] ?? '';
      if (at === null || than[letter] === at || (report.numbers[array]?.shape[axis] ?? 1) === 1) return '';
      const names = report.names[letter];
      const axisName = this.layout.axes[letter] ?? letter;
      return names?.[at] !== undefined ? (/\d$/.test(axisName) || /^(example|unit)$/.test(axisName) ? names[at]! : `${axisName} ${names[at]}`) : `${axisName} ${at}`;
    });
    return said.filter(Boolean).join(', ');
  }
  /** What the page calls an array. */
  title(array: string): string {
    for (const road of [...this.layout.forward, ...this.layout.backward]) {
      const part = road.parts.find((one) => one.array === array && !one.fix && (one.when?.(this.current?.options ?? {}) ?? true));
      if (part) return part.title.split(':')[0]!;
    }
    const said = spoken(array);
    return said.charAt(0).toUpperCase() + said.slice(1);
  }

  choose(piece: string) {
    this.pause();
    [this.undone, this.redone] = [[], []];
    Object.assign(this, { piece, seed: LAYOUTS[piece]?.seed ?? 0, options: {}, edits: [], at: 0, trail: [], back: 0, opened: null, listed: false, place: { ...(LAYOUTS[piece]?.place ?? {}) } });
  }
  setting(name: string) {
    return this.options[name] ?? this.about?.controls.find((control) => control.name === name)?.default ?? '';
  }
  set(name: string, value: string | number) {
    this.options = { ...this.options, [name]: value };
    // What was painted stays on the digit; other changes may not fit what is worked now.
    this.edits = this.current?.paints && name !== 'tokens' ? this.edits.filter((edit) => edit.array === 'input') : [];
    [this.undone, this.redone] = [[], []];
    this.close();
  }
  example(index: number) {
    const last = (this.current?.total || 1797) - 1;
    this.index = Math.max(0, Math.min(last, index));
    this.edits = this.edits.filter((edit) => edit.array !== 'input');
    [this.undone, this.redone] = [[], []];
  }
  open(array: string, index: number[]) {
    this.pause();
    this.trail = [...this.trail.slice(0, this.trail.length - this.back), { array, index }].slice(-40);
    this.back = 0;
    const dims = (this.current?.dims[array] ?? '').split(' ');
    // The grids follow, but for the axes that the sub-step holds.
    this.place = { ...this.place, ...Object.fromEntries(dims.map((letter, axis) => [letter, index[axis]!])) };
  }
  show(letter: string, at: number) {
    this.pause();
    this.place = { ...this.place, [letter]: at };
  }
  close() {
    [this.trail, this.back] = [[], 0];
  }
  edit(array: string, index: number[], value: number | null) {
    [this.undone, this.redone] = [[...this.undone, this.edits].slice(-50), []];
    const others = this.edits.filter((edit) => edit.array !== array || edit.index.join() !== index.join());
    this.edits = value === null ? others : [...others, { array, index, value }];
  }
  /** The digit itself can be painted on: the input, also where it has its rim; not what another network made. */
  paints(array: string): boolean {
    return ['input', 'padded'].includes(array) && this.current?.paints === true;
  }
  /** A pixel of a stroke; the stroke is undone as one. */
  paint(array: string, index: number[], value: number, start: boolean) {
    this.pause();
    if (start) [this.undone, this.redone] = [[...this.undone, this.edits].slice(-50), []];
    const rim = array === 'padded' ? Number(this.setting('padding')) : 0;
    const place = index.map((at, axis) => at - (axis ? rim : 0));
    const input = this.current!.numbers['input']!;
    if (place.some((at, axis) => at < 0 || at >= input.shape[axis]!)) return; // the rim stays 0
    const others = this.edits.filter((edit) => edit.array !== 'input' || edit.index.join() !== place.join());
    this.edits = [...others, { array: 'input', index: place, value: Number(value.toFixed(3)) }];
  }
  undo() {
    const last = this.undone.pop();
    if (last) [this.redone, this.edits] = [[...this.redone, this.edits], last];
  }
  redo() {
    const next = this.redone.pop();
    if (next) [this.undone, this.edits] = [[...this.undone, this.edits], next];
  }
  go(step: number) {
    this.close();
    this.at = Math.min(this.frames.length - 1, Math.max(0, step));
  }
  play() {
    if (this.playing) return this.pause();
    if (this.at >= this.frames.length - 1) this.at = 0;
    this.playing = true;
    this.close();
    const next = () => {
      if (!this.playing) return;
      if (this.at >= this.frames.length - 1) return this.pause();
      this.at += 1;
      const pace = { slow: 2, normal: 1, fast: 0.4 }[this.speed] ?? 1;
      this.timer = setTimeout(next, (this.frame.swept ? 320 : 2200) * pace);
    };
    next();
  }
  pause() {
    this.playing = false;
    clearTimeout(this.timer);
  }
  /** A mean of sizes, for a sentence about an array. */
  size(array: string): number {
    const values = list(this.current?.numbers[array]);
    return values.reduce((sum, v) => sum + Math.abs(v), 0) / (values.length || 1);
  }
}
