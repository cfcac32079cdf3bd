// A small net on a toy problem: its settings, the newest picture of it, the curves so far, and what is opened.
import { binary, Failure, inLine, json, latestWins, type Finding, type Numbers } from '../api';
import { permalink } from './permalink.svelte';
import { reports } from './reports';

export interface ToyReport {
  id: string;
  status: 'playing' | 'paused' | 'ended' | 'failed';
  message: string;
  speed: string;
  updates: number;
  epoch: number;
  version: number;
  undo: number;
  redo: number;
  train_loss: number | null;
  test_loss: number | null;
  train_accuracy: number;
  test_accuracy: number;
}
export interface Layer { name: string; maps: Numbers; weight: Numbers; bias: Numbers; inputs: Numbers; sums: Numbers; values: Numbers }
export interface Picture { report: ToyReport; layers: Layer[]; said: Numbers; place: [number, number] | null; weights: Numbers }
export interface Points { points: Numbers; labels: Numbers; classes: string[]; test: Numbers; note: string; source: string; reach: number }
export interface Neuron { layer: number; unit: number } // layer −1: one of the two inputs

export const PROBLEMS: [string, string][] = [['xor', 'XOR'], ['spirals', 'Two spirals'], ['circles', 'Disc and ring']];
const NOISE: Record<string, number> = { xor: 0.3, spirals: 0.03, circles: 0.05 };
export const ACTIVATIONS: [string, string][] = [['tanh', 'tanh'], ['sigmoid', 'sigmoid'], ['relu', 'ReLU'], ['leaky_relu', 'leaky ReLU'], ['gelu', 'GELU'], ['identity', 'none (identity)']];
export const OPTIMIZERS: [string, string][] = [['adam', 'Adam'], ['sgd', 'SGD'], ['momentum', 'Momentum'], ['rmsprop', 'RMSProp'], ['adagrad', 'AdaGrad'], ['gradient_descent', 'Gradient descent']];
export const SPEEDS: [string, string][] = [['slow', 'slow (an update)'], ['medium', 'medium (an epoch)'], ['fast', 'fast (5 epochs)']];
const SHOWN = 60; // epochs that the page trains by itself when it opens
const COARSE = 21, FINE = 61, MOST = 400; // places a side; points of a curve

const packed = (values: number[]) => btoa(String.fromCharCode(...new Uint8Array(new Float64Array(values).buffer))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
function unpacked(text: string): number[] | null {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0));
    return bytes.length % 8 ? null : Array.from(new Float64Array(bytes.buffer));
  } catch {
    return null;
  }
}

export class Toys {
  problem = $state('xor');
  noise = $state(0.3);
  hidden: number[] = $state.raw([4, 4]);
  activation = $state('tanh');
  optimizer = $state('adam');
  lr = $state(0.03);
  seed = $state(0);
  speed = $state('medium');
  chosen: Neuron | null = $state.raw(null);
  place: [number, number] = $state.raw([0.5, -0.5]);
  about = $state(''); // 'activation' when the Inspector shows the activation

  now = $state.raw<ToyReport | null>(null);
  picture = $state.raw<Picture | null>(null);
  points = $state.raw<Points | null>(null);
  curves: { at: number; report: ToyReport }[] = $state.raw([]);
  failure = $state.raw<Failure | null>(null);
  collapse = $state.raw<Finding | null>(null);
  functions = $state.raw<Finding | null>(null);
  private leave = () => {}; // the net that is followed
  private every = 1;
  private opening = false; // the page trains by itself, until then or until somebody acts
  private make = latestWins<[ToyReport, Points]>(([report, points]) => this.made(report, points), (error) => (this.failure = error));
  private show = latestWins<Picture>((picture) => this.shown(picture), (error) => (this.failure = error));
  private find = latestWins<[Finding | null, Finding | null]>(([collapse, functions]) => ([this.collapse, this.functions] = [collapse, functions]), (error) => (this.failure = error));

  get playing() {
    return this.now?.status === 'playing';
  }
  get sizes() {
    return [2, ...this.hidden, 1];
  }
  get wrong(): number[] {
    const [said, labels] = [this.picture?.said.values, this.points?.labels.values];
    if (!said || !labels || said.length !== labels.length) return [];
    return Array.from(labels, Number).flatMap((label, i) => (Number(Number(said[i]) > 0.5) === label ? [] : [i]));
  }

  start() {
    const query = new URLSearchParams(location.search);
    const one = (name: string, all: [string, string][], otherwise: string) => (all.some(([key]) => key === query.get(name)) ? query.get(name)! : otherwise);
    const number = (name: string, otherwise: number, low: number, high: number) => {
      const given = query.has(name) ? Number(query.get(name)) : otherwise;
      return Number.isFinite(given) ? Math.min(high, Math.max(low, given)) : otherwise;
    };
    this.problem = one('problem', PROBLEMS, 'xor');
    this.noise = number('noise', NOISE[this.problem]!, 0, 1);
    if (query.has('hidden')) this.hidden = query.get('hidden')!.split(',').map(Number).filter((n) => Number.isInteger(n) && n >= 1 && n <= 8).slice(0, 4);
    this.activation = one('activation', ACTIVATIONS, 'tanh');
    this.optimizer = one('optimizer', OPTIMIZERS, 'adam');
    this.speed = one('speed', SPEEDS, 'medium');
    this.lr = number('lr', 0.03, 1e-6, 100);
    this.seed = Math.round(number('seed', 0, 0, 99999));
    const place = (query.get('place') ?? '').split(',').map(Number);
    if (place.length === 2 && place.every(Number.isFinite)) this.place = [place[0]!, place[1]!];
    const neuron = /^(-1|[0-4])\.([0-7])$/.exec(query.get('neuron') ?? '');
    if (neuron && Number(neuron[2]) < (this.sizes[Number(neuron[1]) + 1] ?? 0)) this.chosen = { layer: Number(neuron[1]), unit: Number(neuron[2]) };
    if (query.get('about') === 'activation') this.about = 'activation';
    const weights = query.has('weights') ? unpacked(query.get('weights')!) : null;
    const still = weights !== null || query.get('play') === '0' || matchMedia('(prefers-reduced-motion: reduce)').matches;
    this.begin(weights, Math.round(number('updates', 0, 0, 1e9)), !still);
    // The address holds the weights too, so a link opens exactly this net; written while nothing moves.
    permalink(() => {
      const query = new URLSearchParams({
        problem: this.problem, noise: String(this.noise), hidden: this.hidden.join(','), activation: this.activation, optimizer: this.optimizer,
        lr: String(this.lr), seed: String(this.seed), speed: this.speed, place: this.place.join(','),
      });
      if (this.chosen) query.set('neuron', `${this.chosen.layer}.${this.chosen.unit}`);
      if (this.about) query.set('about', this.about);
      const picture = this.picture;
      if (!picture || this.playing || this.opening) return null;
      if (picture.report.updates || picture.report.undo || weights) {
        query.set('updates', String(picture.report.updates));
        query.set('weights', packed(Array.from(picture.weights.values as Float64Array)));
      } else query.set('play', '0');
      return query;
    });
    $effect(() => () => this.leave());
  }

  begin(weights: number[] | null = null, updates = 0, play = false) {
    this.opening = play;
    const body = {
      problem: this.problem, noise: this.noise, hidden: this.hidden, activation: this.activation, optimizer: this.optimizer, lr: this.lr,
      seed: this.seed, weights, updates: weights ? updates : 0,
    };
    this.make(async () => {
      if (this.playing) await this.tell(() => ({ do: 'pause' }));
      const report = await json<ToyReport>('/api/toys', body);
      return [report, await binary<Points>(`/api/toys/${report.id}/points`, {})];
    });
  }
  private made(report: ToyReport, points: Points) {
    [this.failure, this.points, this.curves, this.every, this.collapse, this.functions] = [null, points, [], 1, null, null];
    if (this.chosen && this.chosen.unit >= (this.sizes[this.chosen.layer + 1] ?? 0)) this.chosen = null;
    this.seen(report);
    this.leave();
    this.leave = reports<ToyReport>(`/api/toys/${report.id}/events`, (said) => this.seen(said));
    if (this.opening) void this.order(() => ({ do: 'play', speed: this.speed }));
  }
  private seen(report: ToyReport) {
    if (this.now?.id === report.id && report.version < this.now.version) return;
    this.now = report;
    if (this.opening && report.epoch >= SHOWN) void this.tell(() => ({ do: 'pause' }));
    if (report.status === 'failed') this.failure = new Failure(report.message, 'Start again, or lower the rate.');
    const last = this.curves.at(-1);
    if (!last || report.updates >= last.at + this.every) this.curves = [...this.curves, { at: report.updates, report }];
    else if (report.updates === last.at) this.curves = [...this.curves.slice(0, -1), { at: report.updates, report }];
    if (this.curves.length > MOST) {
      this.curves = this.curves.filter((_, i) => i % 2 === 0 || i === this.curves.length - 1);
      this.every = Math.max(1, Math.ceil((this.curves.at(-1)!.at - this.curves[0]!.at) / (MOST / 2)));
    }
    this.draw();
  }
  /** The newest picture: coarse while it trains, fine when it stands still. */
  draw() {
    const [id, points, place] = [this.now?.id, this.playing ? COARSE : FINE, this.place];
    if (id) this.show(() => binary<Picture>(`/api/toys/${id}/picture`, { points, place }));
  }
  private shown(picture: Picture) {
    if (picture.report.id !== this.now?.id) return;
    this.picture = picture;
    if (!this.playing) this.measure();
  }
  /** The two lenses of the cards, about the net as it stands. */
  measure() {
    const id = this.now?.id;
    if (!id) return;
    const functions = this.about === 'activation';
    this.find(async () => {
      const found = await Promise.all([binary<Finding>(`/api/toys/${id}/look/linear_collapse`, {}), functions ? binary<Finding>(`/api/toys/${id}/look/activation_functions`, {}) : null]);
      return found;
    });
  }

  // Orders go one after another: an undo right behind a drag takes back that drag, not the one before it.
  private inLine = inLine();
  tell(orders: () => Record<string, unknown> | null) {
    this.opening = false;
    return this.order(orders);
  }
  private async order(orders: () => Record<string, unknown> | null) {
    try {
      await this.inLine(async () => {
        const id = this.now?.id, order = orders();
        if (!id || !order) return;
        const report = await json<ToyReport>(`/api/toys/${id}/control`, order);
        if (this.now?.id === id) this.seen(report);
      });
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  play() {
    void this.tell(() => ({ do: this.playing ? 'pause' : 'play', speed: this.speed }));
  }
  step() {
    void this.tell(() => ({ do: 'step' }));
  }
  again() {
    this.begin();
  }
  hurry(speed: string) {
    this.speed = speed;
    void this.tell(() => ({ do: 'change', speed }));
  }
  train(change: { optimizer?: string; lr?: number }) {
    Object.assign(this, change);
    void this.tell(() => ({ do: 'change', ...change }));
  }
  choose(change: { problem?: string; noise?: number; seed?: number; activation?: string; hidden?: number[] }) {
    Object.assign(this, change);
    if (change.problem) this.noise = NOISE[change.problem]!;
    this.begin();
  }
  deepen(by: number) {
    if (by > 0 && this.hidden.length < 4) this.choose({ hidden: [...this.hidden, this.hidden.at(-1) ?? 4] });
    if (by < 0 && this.hidden.length) this.choose({ hidden: this.hidden.slice(0, -1) });
  }
  widen(layer: number, by: number) {
    const width = (this.hidden[layer] ?? 0) + by;
    if (width >= 1 && width <= 8) this.choose({ hidden: this.hidden.map((n, i) => (i === layer ? width : n)) });
  }
  open(neuron: Neuron | null) {
    [this.chosen, this.about] = [neuron, ''];
  }
  explain() {
    [this.chosen, this.about] = [null, this.about ? '' : 'activation'];
    if (!this.playing) this.measure();
  }
  put(place: [number, number]) {
    this.place = place;
    this.draw();
  }
  private setting = latestWins<ToyReport>((report) => this.now?.id === report.id && this.seen(report), (error) => (this.failure = error));
  set(parameter: string, index: number[], value: number, first: boolean) {
    const id = this.now?.id;
    if (!id) return;
    const order = { do: 'set', weight: { parameter, index, value }, first };
    // The first of a movement must not be skipped: undo goes back to it.
    if (first) void this.tell(() => order);
    else this.setting(() => this.inLine(() => json<ToyReport>(`/api/toys/${id}/control`, order)));
  }
  undo() {
    void this.tell(() => (this.now?.undo ? { do: 'undo' } : null));
  }
  redo() {
    void this.tell(() => (this.now?.redo ? { do: 'redo' } : null));
  }
}
