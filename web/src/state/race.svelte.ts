// A race of optimizers: all from one start, their losses, their paths, and the surface they cross.
import { binary, Failure, json, type Catalogue, type Numbers } from '../api';

export interface RaceReport {
  id: string;
  status: 'sweeping' | 'racing' | 'mapping' | 'done' | 'stopped' | 'failed';
  message: string;
  names: string[];
  rates: Record<string, number>;
  losses: Record<string, (number | null)[]>;
  out: Record<string, string>;
  images: Record<string, number>;
  paths: Record<string, [number, number][]>;
  explained: number | null;
  surface: [done: number, total: number] | null;
  version: number;
}
export interface Surface { x: Numbers; y: Numbers; loss: Numbers; done: number; total: number }
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

export class Race {
  address = $state('64-10');
  chosen: string[] = $state.raw(['gradient_descent', 'sgd', 'momentum', 'adam']);
  steps = $state(60);
  batch = $state(32);
  seed = $state(0);
  lr = $state(''); // "adam=0.01,sgd=0.5"; empty for swept rates
  at = $state(-1); // which step is shown; −1 for the latest

  catalogue = $state.raw<Catalogue | null>(null);
  now = $state.raw<RaceReport | null>(null);
  surface = $state.raw<Surface | null>(null);
  failure = $state.raw<Failure | null>(null);
  playing = $state(false);
  private events: EventSource | null = null;
  private mapped = -1;
  private timer: ReturnType<typeof setInterval> | undefined;

  get count() {
    return Math.max(0, ...Object.values(this.now?.losses ?? {}).map((all) => all.length)) - 1;
  }
  get step() {
    return this.at < 0 ? this.count : Math.min(this.at, this.count);
  }
  get running() {
    return this.now !== null && ['sweeping', 'racing', 'mapping'].includes(this.now.status);
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
    this.batch = whole('batch', 32, 1, 1000);
    this.seed = whole('seed', 0, 0, 99999);
    this.lr = query.get('lr') ?? '';
    json<Catalogue>('/api/catalogue').then((found) => (this.catalogue = found), (error) => (this.failure = error));
    void this.begin();
    $effect(() => {
      const query = new URLSearchParams({ net: this.address, race: this.chosen.join(','), steps: String(this.steps), batch: String(this.batch), seed: String(this.seed) });
      if (this.lr) query.set('lr', this.lr);
      const timer = setTimeout(() => history.replaceState(null, '', `${location.pathname}?${query}`), 150);
      return () => clearTimeout(timer);
    });
    $effect(() => () => {
      this.events?.close();
      clearInterval(this.timer);
    });
  }
  async begin() {
    try {
      if (this.chosen.length < 2) throw new Failure('A race needs at least two optimizers.', 'Tick another one.');
      const body = { network: { address: this.address }, optimizers: this.chosen.join(','), steps: this.steps, batch: this.batch, seed: this.seed, lr: this.lr };
      const report = await json<RaceReport>('/api/races', body);
      [this.failure, this.now, this.surface, this.at, this.mapped] = [null, report, null, -1, -1];
      this.events?.close();
      const events = (this.events = new EventSource(`/api/races/${report.id}/events`));
      events.onmessage = (message) => {
        const said = JSON.parse(message.data) as RaceReport;
        this.now = said;
        if (said.status === 'failed') this.failure = new Failure(said.message, 'Change what is raced, and race again.');
        if (said.surface && said.surface[0] !== this.mapped) void this.fetchSurface(said.id, said.surface[0]);
        if (!this.running) events.close();
      };
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  private async fetchSurface(id: string, done: number) {
    this.mapped = done;
    try {
      const found = await binary<Surface>(`/api/races/${id}/surface`, undefined);
      if (id === this.now?.id) this.surface = found;
    } catch (error) {
      this.failure = error as Failure;
    }
  }
  async tell(order: { stop?: boolean; rates?: Record<string, number> }) {
    if (!this.now) return;
    try {
      await json(`/api/races/${this.now.id}/control`, order);
    } catch (error) {
      this.failure = error as Failure;
    }
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
