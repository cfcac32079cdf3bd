// A recording, scrubbed: its curves, its tensors at a step, one number through all steps, and the answers that flip.
import { binary, Failure, json, latestWins, list, type Numbers } from '../api';
import { permalink } from './permalink.svelte';

export interface Row { address: string; kind: 'recording' | 'run'; model: string; created: number; steps: number; last: number | null; bytes: number; state: string; live: boolean; trouble: string }
export interface Film {
  address: string; path: string; kind: 'recording' | 'run'; model: string; parameters: number | null; created: number; every: number | null;
  state: string; live: boolean; classes: string[]; note: string; steps: Numbers; inputs: number; labels: Numbers;
  metrics: Record<string, { steps: Numbers; values: Numbers; all: number }>;
}
export interface Figures { steps: Numbers; names: string[]; read: number; broken: Record<string, string>; figures: Record<string, Numbers>; answers: Numbers }
export interface Sheet {
  cells: Numbers; places: Numbers; rows: number; columns: number; block: [number, number]; row: number; column: number; shape: number[]; limit: number;
  counts: Numbers; edges: Numbers; min: number; mean: number; max: number; norm: number; not_finite: number; before: number | null; inputs: number;
}
export interface Cell { place: number[]; steps: Numbers; values: Numbers; gradients?: Numbers; rate?: number; change?: number; expected?: number }
export interface Picture { rows: number; columns: number; colour: boolean; pixels: number[] }
interface Example { status: 'none' | 'recording' | 'done' | 'stopped' | 'failed'; message: string; address: string; done: number; total: number }

export const SPEEDS: [string, string][] = [['600', 'slow'], ['150', 'medium'], ['40', 'fast']];
export const WINDOW = 64;
const tell = (error: unknown) => (error instanceof Failure ? error : new Failure(String(error), 'Reload the page.'));
export const named = (name: string) => name.slice(name.indexOf('/') + 1);
export const partOf = (name: string) => name.slice(0, name.indexOf('/'));

export class Recordings {
  rows = $state.raw<Row[] | null>(null);
  address = $state('');
  at = $state<number | null>(null); // the step that is shown; null follows the latest
  name = $state(''); // of the tensor: "weights/…", "gradients/…", "trace/…"
  change = $state(false); // since the step before, instead of the values
  entry = $state(0); // which input of the traced batch
  row = $state(0);
  column = $state(0);
  cell = $state<number | null>(null); // counted flat in the tensor
  onward = $state(false); // flips until the next step, instead of since the one before

  film = $state.raw<Film | null>(null);
  figures = $state.raw<Figures | null>(null);
  sheet = $state.raw<(Sheet & { step: number; name: string; change: boolean }) | null>(null);
  one = $state.raw<(Cell & { step: number; name: string; index: number }) | null>(null);
  pictures = $state.raw<Record<number, Picture>>({});
  example = $state.raw<Example | null>(null);
  failure = $state.raw<Failure | null>(null); // of the whole recording
  sheetFailure = $state.raw<Failure | null>(null);
  playing = $state(false);
  speed = $state('150');
  private timer: ReturnType<typeof setInterval> | undefined;
  private waiting: ReturnType<typeof setTimeout> | undefined;
  private asked = new Set<number>(); // pictures under way

  get steps(): number[] {
    return list(this.film?.steps);
  }
  /** The recorded step that is shown: the last one not after `at`. */
  get step(): number {
    const steps = this.steps;
    if (this.at === null) return steps.at(-1) ?? 0;
    return steps.findLast((step) => step <= this.at!) ?? steps[0] ?? 0;
  }
  get index(): number {
    return this.steps.indexOf(this.step);
  }
  get before(): number | null {
    return this.steps[this.index - 1] ?? null;
  }
  get complete() {
    return this.figures !== null && this.figures.read >= this.steps.length;
  }
  get recording() {
    return this.example?.status === 'recording';
  }
  /** Why the record of this step cannot be read; empty when it can. */
  get torn(): string {
    return this.figures?.broken[String(this.step)] ?? '';
  }
  /** The tensor was not recorded at this step. */
  get absent(): boolean {
    if (!this.figures || this.index < 0 || this.index >= this.figures.read) return false;
    return Number.isNaN(this.figure('not_finite', this.name)[this.index] ?? NaN);
  }
  /** One figure of a tensor at every step. */
  figure(kind: string, name: string): number[] {
    const found = this.figures, place = found?.names.indexOf(name) ?? -1;
    if (!found || place < 0) return [];
    const width = found.steps.shape[0]!;
    return Array.from((found.figures[kind]!.values as Float64Array).subarray(place * width, (place + 1) * width));
  }
  /** The update beside the weights it moved: ‖Δ‖ / ‖weights before‖. */
  ratio(name: string): number[] {
    const norms = this.figure('norm', name);
    return this.figure('change', name).map((change, i) => (i && norms[i - 1] ? change / norms[i - 1]! : NaN));
  }
  answers(index: number): Int32Array {
    const all = this.figures?.answers, width = all?.shape[1] ?? 0;
    return all && index >= 0 && index < all.shape[0]! ? (all.values as Int32Array).subarray(index * width, (index + 1) * width) : new Int32Array();
  }
  /** The inputs whose class changes between two records; those without an answer count for nothing. */
  flips(from: number, to: number): number[] {
    const [was, is] = [this.answers(from), this.answers(to)];
    return Array.from(is.keys()).filter((i) => was[i]! >= 0 && is[i]! >= 0 && was[i] !== is[i]);
  }
  called(label: number): string {
    return this.film?.classes[label] ?? String(label);
  }

  private readonly askSheet = latestWins<Sheet & { step: number; name: string; change: boolean }>(
    (found) => ([this.sheet, this.sheetFailure] = [found, null]),
    (error) => ([this.sheet, this.sheetFailure] = [null, error]),
  );
  private readonly askCell = latestWins<(Cell & { step: number; name: string; index: number }) | null>((found) => (this.one = found), () => (this.one = null));

  start() {
    const query = new URLSearchParams(location.search);
    const whole = (name: string) => (/^\d+$/.test(query.get(name) ?? '') ? Number(query.get(name)) : null);
    this.address = query.get('recording') ?? '';
    this.name = query.get('tensor') ?? '';
    [this.at, this.cell] = [whole('step'), whole('cell')];
    [this.entry, this.row, this.column] = [whole('input') ?? 0, whole('row') ?? 0, whole('column') ?? 0];
    [this.change, this.onward] = [query.has('change'), query.has('onward')];
    void this.begin();
    permalink(() => {
      const query = new URLSearchParams();
      if (this.address) query.set('recording', this.address);
      if (this.at !== null) query.set('step', String(this.at));
      if (this.name) query.set('tensor', this.name);
      for (const [key, value] of [['input', this.entry], ['row', this.row], ['column', this.column]] as const) if (value) query.set(key, String(value));
      if (this.cell !== null) query.set('cell', String(this.cell));
      if (this.change) query.set('change', '1');
      if (this.onward) query.set('onward', '1');
      return query;
    });
    $effect(() => {
      if (!this.film || !this.name || this.index < 0 || this.torn || this.absent) return;
      void this.figures?.read; // its scale may have grown
      const [address, step, name] = [this.film.address, this.step, this.name];
      const change = this.change && partOf(name) === 'weights' && this.before !== null;
      const body = { address, step, name, change, entry: this.entry, row: this.row, column: this.column };
      this.askSheet(async () => ({ ...(await binary<Sheet>('/api/recordings/sheet', body)), step, name, change }));
    });
    $effect(() => {
      if (!this.film || this.index < 0) return;
      const [address, step, name, index] = [this.film.address, this.step, this.name, this.torn || this.absent ? null : this.cell];
      this.askCell(async () => (index === null ? null : { ...(await binary<Cell>('/api/recordings/cell', { address, step, name, index })), step, name, index }));
    });
    $effect(() => () => {
      clearInterval(this.timer);
      clearTimeout(this.waiting);
    });
  }
  private async begin() {
    try {
      this.rows = await json<Row[]>('/api/recordings');
      this.address ||= this.rows.find((row) => !row.trouble && row.steps)?.address ?? '';
      if (this.address) await this.refresh();
      const example = await json<Example>('/api/recordings/example');
      if (example.status === 'recording') void this.watchExample(example);
    } catch (error) {
      this.failure = tell(error);
    }
  }
  async open(address: string) {
    clearTimeout(this.waiting);
    this.pause();
    [this.address, this.at, this.cell, this.row, this.column, this.entry] = [address.trim(), null, null, 0, 0, 0];
    [this.film, this.figures, this.sheet, this.one, this.failure, this.sheetFailure, this.pictures, this.name] = [null, null, null, null, null, null, {}, ''];
    this.asked.clear();
    await this.refresh();
  }
  /** Ask for what is on disk now; while it is being written, ask again. */
  private async refresh() {
    clearTimeout(this.waiting);
    const address = this.address;
    try {
      const film = await binary<Film>('/api/recordings/open', { address });
      if (address !== this.address) return;
      [this.film, this.failure] = [film, null];
      await this.readOn(address);
      if (address !== this.address) return;
      if (film.live) this.waiting = setTimeout(() => void this.refresh(), 700);
    } catch (error) {
      if (address === this.address) this.failure = tell(error);
    }
  }
  private async readOn(address: string) {
    let read = -1;
    for (;;) {
      const found = await binary<Figures>('/api/recordings/figures', { address });
      if (address !== this.address) return;
      this.figures = found;
      if (!this.name && found.names.length) this.name = found.names.find((name) => name.startsWith('weights/')) ?? found.names[0]!;
      if (found.read >= found.steps.shape[0]! || found.read === read) return;
      read = found.read;
    }
  }
  async recordExample() {
    try {
      const example = await json<Example>('/api/recordings/example', {});
      if (example.status === 'failed') throw new Failure(example.message, 'Mend that, and try again.');
      await this.watchExample(example);
    } catch (error) {
      this.failure = tell(error);
    }
  }
  private async watchExample(example: Example) {
    this.example = example;
    if (example.address && example.address !== this.address) void this.open(example.address);
    while (this.recording) {
      await new Promise((done) => setTimeout(done, 300));
      this.example = await json<Example>('/api/recordings/example').catch(() => null);
    }
    if (this.example?.status === 'failed') this.failure = new Failure(this.example.message, 'What was recorded before is whole.');
    else if (this.address === example.address) await this.refresh();
    this.rows = await json<Row[]>('/api/recordings').catch(() => this.rows);
  }
  async stopExample() {
    await json('/api/recordings/example?stop=true', {}).catch((error) => (this.failure = tell(error)));
  }
  async fetchPictures(indices: number[]) {
    const wanted = indices.filter((i) => !this.asked.has(i)).slice(0, 100);
    if (!wanted.length || !this.film?.inputs) return;
    wanted.forEach((i) => this.asked.add(i));
    const address = this.film.address;
    try {
      const found = await binary<{ rows: number; columns: number; colour: boolean; pixels: Numbers }>('/api/recordings/inputs', { address, indices: wanted });
      if (address !== this.film?.address) return;
      const size = found.pixels.shape[1]!;
      const made = wanted.map((i, k) => [i, { rows: found.rows, columns: found.columns, colour: found.colour, pixels: Array.from((found.pixels.values as Float64Array).subarray(k * size, (k + 1) * size)) }]);
      this.pictures = { ...this.pictures, ...Object.fromEntries(made) };
    } catch (error) {
      this.failure = tell(error);
    }
  }
  choose(name: string) {
    if (name !== this.name) [this.row, this.column, this.cell] = [0, 0, null];
    this.name = name;
  }
  go(step: number) {
    this.at = step >= (this.steps.at(-1) ?? 0) && this.film?.live ? null : step;
  }
  move(by: number) {
    const step = this.steps[Math.min(this.steps.length - 1, Math.max(0, this.index + by))];
    if (step !== undefined) this.go(step);
  }
  play() {
    if (this.playing) return this.pause();
    if (this.index >= this.steps.length - 1) this.go(this.steps[0] ?? 0);
    this.playing = true;
    this.timer = setInterval(() => (this.index >= this.steps.length - 1 ? this.pause() : this.move(1)), Number(this.speed));
  }
  pause() {
    this.playing = false;
    clearInterval(this.timer);
  }
  pace(speed: string) {
    this.speed = speed;
    if (this.playing) {
      this.pause();
      this.play();
    }
  }
}
