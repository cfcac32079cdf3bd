// A race of optimizers: all from one start, their losses, their paths, and the surface they cross.
import { binary, Failure, inLine, json, latestWins, type Catalogue, type Numbers } from '../api';
import { permalink } from './permalink.svelte';
import { reports } from './reports';

export interface Plane {
  number: number;
  kind: 'start' | 'paths';
  upto: number; // the last step that it knows
  explained: number | null; // the share of the steps' variance that it keeps
  start: [x: number, y: number];
  start_off: number; // how far the start is from it
  done: number;
  total: number;
}
/** Where a moved start comes from. */
export interface Origin { x: number; y: number; kind: 'start' | 'paths'; upto: number; network: string; seed: number; from: string; optimizers: string }
export interface RaceReport {
  id: string;
  status: 'opening' | 'sweeping' | 'racing' | 'mapping' | 'done' | 'stopped' | 'failed';
  message: string;
  names: string[];
  rates: Record<string, number>;
  losses: Record<string, (number | null)[]>;
  out: Record<string, string>;
  images: Record<string, number>;
  changes: [step: number, name: string, rate: number][];
  pace: Pace;
  start: string;
  about: Partial<Origin>;
  plane: Plane | null;
  paths: Record<string, [number, number][]>;
  version: number;
}
export type Pace = 'paused' | 'slow' | 'full';
export interface Surface { plane: number; x: Numbers; y: Numbers; loss: Numbers; done: number; total: number }
/** What is drawn: a surface with the paths in its own plane. */
export interface Scene { plane: Plane; surface: Surface; paths: Record<string, [number, number][]> }
export const OPTIMIZERS: [name: string, text: string][] = [
  ['one_weight_at_a_time', 'One weight at a time'],
  ['gradient_descent', 'Gradient descent (all images)'],
  ['sgd', 'SGD'],
  ['momentum', 'Momentum'],
  ['nesterov', 'Nesterov'],
  ['adagrad', 'AdaGrad'],
  ['rmsprop', 'RMSProp'],
  ['adam', 'Adam'],
  ['adamw', 'AdamW'],
  ['lbfgs', 'L-BFGS'],
];

export const nameOf = (name: string) => OPTIMIZERS.find(([one]) => one === name)?.[1] ?? name;

export class Race {
  address = $state('64-10');
  chosen: string[] = $state.raw(['gradient_descent', 'sgd', 'momentum', 'adam']);
  steps = $state(60);
  batch = $state(32);
  seed = $state(0);
  lr = $state(''); // "adam=0.01,sgd=0.5"; empty for swept rates
  at = $state(-1); // which step is shown; −1 for the latest
  from = $state('random'); // the start: made from the seed, or the id of one that was moved
  pace = $state<Pace>('full');
  changes: [step: number, name: string, rate: number][] = $state.raw([]); // rates changed on the way
  view = $state<'map' | '3d'>('map');
  turn: [yaw: number, tilt: number, zoom: number] = $state.raw([-32, 34, 1]);
  scale = $state<'log' | 'rank'>('log');

  catalogue = $state.raw<Catalogue | null>(null);
  now = $state.raw<RaceReport | null>(null);
  scene = $state.raw<Scene | null>(null);
  aim = $state.raw<[x: number, y: number] | null>(null); // where the start is being moved to
  failure = $state.raw<Failure | null>(null);
  playing = $state(false);
  private leave = () => {}; // the race that is followed
  private make = latestWins<[RaceReport, Race['changes']]>(([report, changes]) => this.made(report, changes), (error) => (this.failure = error));
  private mapped = '';
  private timer: ReturnType<typeof setInterval> | undefined;

  get count() {
    return Math.max(0, ...Object.values(this.now?.losses ?? {}).map((all) => all.length)) - 1;
  }
  get step() {
    return this.at < 0 ? this.count : Math.min(this.at, this.count);
  }
  get running() {
    return this.now !== null && ['opening', 'sweeping', 'racing', 'mapping'].includes(this.now.status);
  }
  /** A race on its way lays its plane anew: the start can be moved when it stands still. */
  get movable() {
    return this.scene !== null && this.now !== null && (!this.running || this.now.pace === 'paused');
  }
  /** A colour follows its optimizer to every panel of a race. */
  colour(name: string) {
    return `--series-${Math.max(0, this.now?.names.indexOf(name) ?? 0) % 8}`;
  }

  start() {
    const query = new URLSearchParams(location.search);
    const whole = (name: string, otherwise: number, low: number, high: number) => (query.has(name) ? Math.min(high, Math.max(low, Math.round(Number(query.get(name)) || 0))) : otherwise);
    this.address = query.get('net') ?? '64-10';
    const names = (query.get('race') ?? '').split(',').filter((name) => OPTIMIZERS.some(([one]) => one === name));
    if (names.length >= 2) this.chosen = names;
    this.steps = whole('steps', 60, 2, 2000);
    this.batch = whole('batch', 32, 1, 10000);
    this.seed = whole('seed', 0, 0, 99999);
    this.lr = query.get('lr') ?? '';
    this.from = query.get('start') ?? 'random';
    this.pace = query.get('pace') === 'slow' ? 'slow' : 'full';
    this.changes = (query.get('changes') ?? '').split(',').map((one) => one.split(':')).filter((parts) => parts.length === 3).map(([step, name, rate]) => [Number(step) || 0, name!, Number(rate)]);
    this.view = query.get('view') === '3d' ? '3d' : 'map';
    this.scale = query.get('height') === 'rank' ? 'rank' : 'log';
    const turn = (query.get('turn') ?? '').split(',').map(Number);
    if (turn.length === 3 && turn.every(Number.isFinite)) this.turn = [turn[0]!, Math.min(90, Math.max(2, turn[1]!)), Math.min(6, Math.max(0.6, turn[2]!))];
    json<Catalogue>('/api/catalogue').then((found) => (this.catalogue = found), (error) => (this.failure = error));
    this.begin(true);
    permalink(() => {
      const query = new URLSearchParams({ net: this.address, race: this.chosen.join(','), steps: String(this.steps), batch: String(this.batch), seed: String(this.seed) });
      if (this.lr) query.set('lr', this.lr);
      if (this.from !== 'random') query.set('start', this.from);
      if (this.pace === 'slow') query.set('pace', 'slow');
      if (this.changes.length) query.set('changes', this.changes.map((one) => one.join(':')).join(','));
      if (this.view === '3d') {
        query.set('view', '3d');
        query.set('turn', this.turn.map((v) => Number(v.toFixed(2))).join(','));
        if (this.scale === 'rank') query.set('height', 'rank');
      }
      return query;
    });
    $effect(() => () => {
      this.leave();
      clearInterval(this.timer);
    });
  }
  /** Race from the start; `again` with the rates changed at the same steps as before. */
  begin(again = false) {
    this.pause();
    if (this.chosen.length < 2) return void (this.failure = new Failure('A race needs at least two optimizers.', 'Tick another one.'));
    const changes = again ? this.changes.filter(([, name]) => this.chosen.includes(name)) : [];
    const body = { network: { address: this.address }, optimizers: this.chosen.join(','), steps: this.steps, batch: this.batch, seed: this.seed, lr: this.lr, start: this.from, pace: this.pace, changes };
    this.make(async () => [await json<RaceReport>('/api/races', body), changes]);
  }
  private made(report: RaceReport, changes: Race['changes']) {
    [this.failure, this.now, this.at, this.mapped, this.aim, this.changes] = [null, report, -1, '', null, changes];
    this.leave();
    this.leave = reports<RaceReport>(`/api/races/${report.id}/events`, (said) => {
      this.seen(said);
      if (said.changes.length > this.changes.length) this.changes = said.changes;
      if (said.status === 'failed') this.failure = new Failure(said.message, 'Change what is raced, and race again.');
      this.see(said);
      return ['done', 'stopped', 'failed'].includes(said.status);
    });
  }
  private seen(said: RaceReport) {
    if (said.id === this.now?.id && said.version >= this.now.version) this.now = said;
  }
  /** Draw the paths in the plane they are in; a new plane is seen when its surface is here. */
  private see(said: RaceReport) {
    if (!said.plane) return;
    const shown = `${said.id} ${said.plane.number}`, wanted = `${shown} ${said.plane.done}`;
    if (this.drawn === shown && this.scene) this.scene = { ...this.scene, plane: { ...said.plane, done: this.scene.surface.done }, paths: said.paths };
    if (wanted !== this.mapped) void this.fetchSurface(said.id, wanted);
  }
  private drawn = ''; // the plane that is seen
  private async fetchSurface(id: string, wanted: string) {
    this.mapped = wanted;
    try {
      const surface = await binary<Surface>(`/api/races/${id}/surface`, undefined);
      const now = this.now;
      if (id !== now?.id || now.plane?.number !== surface.plane) return; // a newer one is on its way
      if (this.drawn !== `${id} ${surface.plane}`) this.aim = null;
      this.drawn = `${id} ${surface.plane}`;
      this.scene = { plane: now.plane, surface, paths: now.paths };
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  /** Race from the place of the plane that the start was moved to. */
  async move(x: number, y: number) {
    if (!this.now || !this.scene || !this.movable) return;
    this.aim = [x, y];
    try {
      this.from = (await json<{ start: string }>(`/api/races/${this.now.id}/start`, { plane: this.scene.plane.number, x, y })).start;
    } catch (error) {
      this.failure = error as Failure;
      return;
    }
    this.begin();
  }
  goBack() {
    if (this.from === 'random') return;
    this.from = 'random';
    this.begin();
  }
  private inLine = inLine();
  async tell(orders: () => { stop?: boolean; pace?: Pace; rates?: Record<string, number> } | null) {
    const id = this.now?.id;
    try {
      await this.inLine(async () => {
        const order = orders();
        if (order && id && id === this.now?.id) this.seen(await json<RaceReport>(`/api/races/${id}/control`, order));
      });
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  /** Hold the race, or let it go on. */
  hold() {
    void this.tell(() => (this.running ? { pace: this.now?.pace === 'paused' ? this.pace : 'paused' } : null));
  }
  toggle(name: string) {
    this.chosen = this.chosen.includes(name) ? this.chosen.filter((one) => one !== name) : [...this.chosen, name].slice(-8);
  }
  go(step: number) {
    this.at = Math.min(this.count, Math.max(0, step));
  }
  play() {
    if (this.playing) return this.pause();
    if (this.step >= this.count) this.at = 0;
    this.playing = true;
    this.timer = setInterval(() => {
      if (this.step >= this.count) this.pause();
      else this.go(this.step + 1);
    }, 90);
  }
  pause() {
    this.playing = false;
    clearInterval(this.timer);
  }
}
